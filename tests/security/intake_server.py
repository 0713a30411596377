"""Reads uploads in forked children of one warm process, and says what each cost.

`python -m tests.security.intake_server`: one JSON line {"kind", "path"} on stdin for each upload,
one JSON line on stdout: code, message, where, crash, seconds, grown (bytes of memory at the peak
over those before). Forked, so that each upload meets the same clean process, all imports done.
"""

import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

SECONDS = 20
"""After these the child is ended by its own CPU limit; the test asks for far less."""


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    return 0


def _attempt(kind: str, path: Path) -> dict[str, object]:
    from pruning.errors import SecateurError
    from pruning.formats.intake import check_dataset, check_model

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, mapped, start = _memory("VmRSS"), _memory("RssFile"), time.perf_counter()
    said: dict[str, object] = {"code": None, "crash": None}
    try:
        (check_model if kind == "model" else check_dataset)(path)
    except SecateurError as error:
        said |= {"code": error.code, "message": error.message, "where": error.where}
    except BaseException:
        said["crash"] = traceback.format_exc()
    said["seconds"] = time.perf_counter() - start
    # After a fork, libraries count again as their pages are touched: they are no memory of its own.
    libraries = max(0, _memory("RssFile") - mapped)
    said["grown"] = max(0, _memory("VmHWM") - before - libraries)
    return said


def main() -> None:
    """Serve until stdin ends."""
    import torch

    torch.set_num_threads(1)
    import pruning.formats.architecture
    import pruning.formats.huggingface
    import pruning.formats.intake
    import pruning.formats.onnx
    import pruning.formats.pt2  # noqa: F401

    _warm()
    for line in sys.stdin:
        asked = json.loads(line)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            os.write(write, json.dumps(_attempt(asked["kind"], Path(asked["path"]))).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as answer:
            said = answer.read()
        _, status = os.waitpid(child, 0)
        if not said:
            said = json.dumps({"code": None, "crash": f"it died: {status}"}).encode()
        sys.stdout.write(said.decode() + "\n")
        sys.stdout.flush()


def _warm() -> None:
    """Imports what readers import late: what a child started ahead has done by then."""
    import tempfile

    from tests.security import samples

    with tempfile.TemporaryDirectory() as folder:
        for name, sample in samples.SAMPLES.items():
            said = _attempt(sample.kind, sample.make(Path(folder) / name))
            if said["code"] or said["crash"]:
                raise SystemExit(f"the sample {name} is not read: {said}")


if __name__ == "__main__":
    main()
