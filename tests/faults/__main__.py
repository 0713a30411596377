"""`python -m tests.faults`: runs scenarios and prints a table; 1 where something did not hold."""

import argparse
import ctypes
import importlib
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tests.faults import invariants, scenarios
from tests.faults.databases import Postgres, Sqlite, opened
from tests.faults.service import NotHeldError, Service
from tests.faults.shim import Shim
from tests.faults.stage import SkippedError, Stage

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWIPC, _PRIVATE = 0x00020000, 0x08000000, (1 << 18) | (1 << 14)


@dataclass(frozen=True)
class Row:
    """A scenario's line in the table."""

    scenario: str
    database: str
    rounds: int
    wrong: list[str]
    longest: float
    seconds: float
    notes: str


def apart() -> bool:
    """Leave the machine's shared memory and mounts: what is left behind is then this run's own."""
    if os.geteuid() != 0 or _LIBC.unshare(_NEWNS | _NEWIPC):
        return False
    private = not _LIBC.mount(b"none", b"/", None, _PRIVATE, None)
    return private and not _LIBC.mount(b"shm", b"/dev/shm", b"tmpfs", 0, b"size=4g")


def modules(names: list[str]) -> list[ModuleType]:
    """Scenarios by their names; all but the soak where none is named."""
    known = [m.name for m in pkgutil.iter_modules(scenarios.__path__)]
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"no scenario {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = names or [name for name in known if name != "soak"]
    return [importlib.import_module(f"tests.faults.scenarios.{name}") for name in chosen]


class Bench:
    """Starts services for scenarios: one for all in the short form, one for each in the long.

    Args:
        database: Name of the database.
        arguments: Of the command line.
        folder: For everything.
    """

    def __init__(self, database: str, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments, self._folder = arguments, folder
        self._long = arguments.form == "long"
        folder.chmod(0o755)
        self.shim = Shim(folder) if Shim.possible() else None
        environment = self.shim.environment if self.shim else {}
        self.database: Sqlite | Postgres = opened(database, environment)
        self._service: Service | None = None
        self._shared = invariants.shared_memory()
        self._started = 0

    def _serve(self, settings: dict[str, object]) -> Service:
        if settings:
            self.discard()
        if self._service is None:
            self._started += 1
            folder = self._folder / f"service-{self._started}"
            self._service = Service(
                folder, self.database, self.shim, small_disk=True, settings=settings
            )
            try:
                self._service.start()
            except Exception:
                print(self._service.log(40), flush=True)
                raise
        return self._service

    def _stage(self, module: ModuleType) -> Stage:
        asked = self._arguments.rounds
        rounds = asked or (module.LONG if self._long else module.SHORT)
        seed = self._arguments.seed
        chance = random.Random(f"{seed} {module.__name__} {self.database.name}")
        service = self._serve(getattr(module, "SETTINGS", {}))
        return Stage(service, rounds, chance, self._long, self._arguments.seconds)

    def run(self, module: ModuleType) -> Row:
        """One scenario, and what must hold after it."""
        name = module.__name__.rsplit(".", 1)[1]
        print(f"{name} on {self.database.name}", flush=True)
        began = time.monotonic()
        stage = self._stage(module)
        try:
            module.run(stage)
        except SkippedError as reason:
            stage.note(f"skipped: {reason}")
        except Exception as error:
            stage.hold(False, f"{type(error).__name__}: {error}")
            traceback.print_exc()
        self._calm(stage, name)
        if self._long:
            self._end(stage)
        if stage.wrong:
            print(stage.service.log(), flush=True)
            self.discard()
        return Row(
            name,
            self.database.name,
            stage.done,
            stage.wrong,
            stage.longest,
            time.monotonic() - began,
            "; ".join(stage.notes),
        )

    def _calm(self, stage: Stage, name: str) -> None:
        if self.shim is not None:
            self.shim.disarm()
            self.shim.clock = 0.0
        stage.service.away.clear()
        try:
            invariants.check(stage, clock=name not in ("clock_steps", "histories", "soak"))
        except Exception as error:
            stage.hold(False, f"the check after it: {type(error).__name__}: {error}")
            traceback.print_exc()

    def _end(self, stage: Stage) -> None:
        try:
            invariants.check_end(stage, self._shared)
        except (NotHeldError, OSError) as error:
            stage.hold(False, f"the orderly end: {error}")
        self.discard()

    def last(self) -> Row | None:
        """The orderly end of the service that the scenarios shared."""
        if self._service is None:
            return None
        began = time.monotonic()
        stage = Stage(self._service, 1, random.Random(0), self._long)
        self._end(stage)
        took = time.monotonic() - began
        return Row("orderly end", self.database.name, 1, stage.wrong, 0.0, took, "")

    def discard(self) -> None:
        """Kill the service, if one runs."""
        service, self._service = self._service, None
        if service is not None:
            service.close()

    def close(self) -> None:
        self.discard()
        self.database.close()


def table(rows: list[Row]) -> str:
    """The rows, aligned."""
    head = ("scenario", "database", "rounds", "wrong", "longest recovery", "took", "")
    lines = [head] + [
        (
            row.scenario,
            row.database,
            f"{row.rounds:,}",
            str(len(row.wrong)),
            f"{row.longest:.1f} s" if row.longest else "-",
            f"{row.seconds:.0f} s",
            row.notes,
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head) - 1)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)
        ).rstrip()
        for line in lines
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("scenario", nargs="*", help="names; all but the soak where none is given")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="sqlite")
    parser.add_argument("--form", choices=("short", "long"), default="short")
    parser.add_argument("--rounds", type=int, help="instead of those of the form")
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long the soak lasts")
    parser.add_argument("--seed", type=int, default=0, help="of what is left to chance")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = modules(arguments.scenario)
    apart()
    both = ("sqlite", "postgresql")
    rows: list[Row] = []
    for database in both if arguments.database == "both" else (arguments.database,):
        folder = Path(tempfile.mkdtemp(prefix="secateur-faults-"))
        bench = Bench(database, arguments, folder)
        try:
            rows += [bench.run(module) for module in chosen]
            if (row := bench.last()) is not None:
                rows.append(row)
        finally:
            bench.close()
            if all(not row.wrong for row in rows):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                print(f"kept: {folder}")
    print("\n" + table(rows))
    for row in rows:
        for text in row.wrong:
            print(f"{row.scenario} on {row.database}: {text}")
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
