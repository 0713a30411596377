"""The scrub: all stored files are read now and then, so that damage is found before it matters.

`python -m store.scrub` reads all of them now, as fast as it can, and says what is damaged or
missing. The control process goes through them slowly, again and again; how far it is lies in a file
beside the blobs, so that another leader goes on from there.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from store.blobs import Blobs, DamagedBlobError, LocalBlobs
from store.clock import utcnow
from store.db import Database
from store.queries import blobs as rows
from store.settings import Settings, get_settings

log = logging.getLogger(__name__)

Result = Literal["sound", "damaged", "missing"]
RESULTS: tuple[Result, ...] = ("sound", "damaged", "missing")
_BATCH = 200
_PAUSE = 0.1  # seconds; shorter ones would only wake the process


@dataclass
class Progress:
    """How far the scrub is.

    Args:
        began_at: When the present pass, or the last one, began, as ISO 8601; empty before any.
        finished_at: When a pass was last finished.
        passed: The digest up to which the present pass has come; empty between two passes.
        files: Files read in all passes, by what they were.
        bytes: Bytes read in all passes.
    """

    began_at: str = ""
    finished_at: str = ""
    passed: str = ""
    files: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(RESULTS, 0))
    bytes: int = 0

    @classmethod
    def read(cls, path: Path) -> Self:
        """What the file holds; a new beginning where it is missing or can't be read."""
        try:
            read = cls(**json.loads(path.read_text()))
            if set(read.files) == set(RESULTS):
                return read
        except (OSError, ValueError, TypeError):
            log.debug("no progress can be read from %s", path)
        return cls()

    def write(self, path: Path) -> None:
        """Replaces the file; a lost one costs a pass."""
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(asdict(self)))
        aside.replace(path)

    def due(self, now: datetime, days: float) -> bool:
        """Whether a pass is to begin, or one that was begun is to go on."""
        if self.passed or not self.began_at:
            return True
        return (now - datetime.fromisoformat(self.began_at)).total_seconds() >= days * 86_400


def progress_file(settings: Settings) -> Path:
    """Where the control process keeps how far it is."""
    return settings.blob_dir / "scrub.json"


class Scrub:
    """Reads the blobs that rows refer to, in the order of their digests.

    Args:
        database: Has the rows.
        blobs: Have the files.
        bytes_per_second: How fast; None as fast as it goes.
        wait: Waits for so many seconds, and says whether to stop.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        bytes_per_second: int | None,
        wait: Callable[[float], bool],
    ) -> None:
        self._db, self._blobs = database, blobs
        self._rate, self._wait = bytes_per_second, wait
        self._free_at = time.monotonic()

    def go_on(self, progress: Progress) -> bool:
        """Goes on with the present pass, or begins one.

        Returns:
            Whether the pass is finished; else it was told to stop, and `progress` says where.

        Raises:
            OSError: The storage can't be read at all.
        """
        if not progress.passed:
            progress.began_at = utcnow().isoformat()
            self._blobs.restore_sound()
        while batch := self._batch(progress.passed):
            for sha256, size in batch:
                if (result := self._look(sha256, size)) == "stopped":
                    return False
                if result is not None:
                    progress.files[result] += 1
                    progress.bytes += size
                progress.passed = sha256
        progress.passed, progress.finished_at = "", utcnow().isoformat()
        return True

    def _batch(self, after: str) -> list[tuple[str, int]]:
        with self._db.read() as session:
            return rows.after(session, after, _BATCH)

    def _look(self, sha256: str, size: int) -> Result | Literal["stopped"] | None:
        """What a file is; None for one that nobody refers to any more."""
        try:
            with self._blobs.open(sha256, size) as file:
                file.forget_cached()
                for length in file.check():
                    if self._paced(length):
                        return "stopped"
        except DamagedBlobError as error:
            with self._db.read() as session:
                if not rows.known(session, sha256):
                    return None  # removed while it was looked at
            return "missing" if error.missing else "damaged"
        return "sound"

    def _paced(self, length: int) -> bool:
        """Waits as the rate asks; whether to stop."""
        if self._rate is None:
            return self._wait(0.0)
        now = time.monotonic()
        self._free_at = max(now, self._free_at) + length / self._rate
        ahead = self._free_at - now
        return self._wait(ahead if ahead >= _PAUSE else 0.0)


def main(arguments: list[str] | None = None) -> int:
    """Read all files once; exit with 1 if any is damaged or missing."""
    parser = argparse.ArgumentParser(prog="python -m store.scrub", description=__doc__)
    parser.add_argument("--bytes-per-second", type=int, help="no limit without it")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    settings = get_settings()
    progress = Progress()
    scrub = Scrub(
        Database(settings),
        LocalBlobs(settings.blob_dir),
        options.bytes_per_second,
        _slept,
    )
    scrub.go_on(progress)
    found = progress.files
    print(f"{sum(found.values())} files: {', '.join(f'{found[r]} {r}' for r in RESULTS)}")
    return 1 if found["damaged"] or found["missing"] else 0


def _slept(seconds: float) -> bool:
    time.sleep(seconds)
    return False


if __name__ == "__main__":
    raise SystemExit(main())
