"""Damaged files, kept aside for the operator: `quarantine/<time>-<sha256>`.

The time is when the damage was found, in UTC. A file may be whole again, as where a cable was
loose: `LocalBlobs.restore_sound` looks.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-([0-9a-f]{64})")
_TIME = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True)
class Quarantined:
    """One damaged file."""

    sha256: str
    found_at: datetime
    bytes: int
    path: Path


def place_for(folder: Path, sha256: str, now: datetime) -> Path:
    """Where a file that is found damaged now goes."""
    return folder / f"{now.astimezone(UTC).strftime(_TIME)}-{sha256}"


def listed(folder: Path) -> list[Quarantined]:
    """The files there, the oldest first."""
    found = []
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        name = _NAME.fullmatch(path.name)
        if name is None:
            continue
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue
        at = datetime.strptime(name[1], _TIME).replace(tzinfo=UTC)
        found.append(Quarantined(name[2], at, size, path))
    return found
