"""`python -m tests.fuzz [--minutes M] [TARGET ...]`: atheris on every reader, one after the other.

Each target runs in a process of its own. A crash, a hang of more than 10 s, or more than 2 GiB ends
it and leaves the input below `fuzz-out/`; exit code 1 then. `--list` names the targets.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS
from tests.security.samples import environment

OUT = Path("fuzz-out")


def _drive(name: str, seconds: int) -> None:
    """In the child: fuzz one target; never returns."""
    import atheris

    with atheris.instrument_imports(include=["pruning"]):
        import pruning.formats.intake  # noqa: F401

    import torch

    torch.set_num_threads(1)
    target = TARGETS[name]
    work = Path(tempfile.mkdtemp(prefix="secateur-fuzz-"))
    corpus = work / "corpus"
    corpus.mkdir()
    seed = target.prepare(work)
    (corpus / "seed").write_bytes(seed)
    with atheris.instrument_imports(include=["pruning"]):
        assert target.read(work, seed) is None, "the seed itself is refused"
    crashes = OUT / name.replace(":", "_")
    crashes.mkdir(parents=True, exist_ok=True)

    def one(data: bytes) -> None:
        target.read(work, data)

    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            f"-max_len={max(4096, 2 * len(seed))}",
            "-timeout=10",
            "-rss_limit_mb=2048",
            f"-artifact_prefix={crashes}/",
            "-print_final_stats=1",
            str(corpus),
        ],
        one,
    )
    atheris.Fuzz()


def main() -> int:
    """Run the targets that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target (default 10)")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--drive", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.list:
        print("\n".join(TARGETS))
        return 0
    seconds = max(1, round(given.minutes * 60))
    if given.drive:
        _drive(given.targets[0], seconds)
    bad = []
    for name in given.targets or TARGETS:
        start = time.monotonic()
        command = [sys.executable, "-m", "tests.fuzz", "--drive", "--minutes", str(given.minutes)]
        done = subprocess.run(
            [*command, name],
            env=environment() | {"PYTHONHASHSEED": "0"},
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        runs = [ln for ln in done.stderr.splitlines() if "number_of_executed_units" in ln]
        count = runs[-1].split()[-1] if runs else "?"
        state = "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
        print(f"{name:32} {state:14} {count:>9} runs {time.monotonic() - start:6.0f} s", flush=True)
        if done.returncode:
            bad.append(name)
            print(done.stderr[-6000:], flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
