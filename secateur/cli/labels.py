"""Whether data hold labels, told from a glance: no more than names and a first line are read."""

import json
import tarfile
import zipfile
from pathlib import Path

_LABELS = ("target", "label", "labels")
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def labelled(data: Path) -> bool:
    """Whether the file holds labels; what can't be told here counts as labelled.

    Reading it will say what is wrong with it.
    """
    try:
        with data.open("rb") as file:
            head = file.read(1 << 16)
        if head.startswith(b"PK"):
            with zipfile.ZipFile(data) as archive:
                return _named(archive.namelist())
        if head[257:262] == b"ustar":
            with tarfile.open(data) as tar:
                return _named(tar.getnames())
        if head.startswith(b"PAR1"):
            return _parquet(data)
        if head.lstrip()[:1] == b"{":
            return not set(_LABELS).isdisjoint(json.loads(head.lstrip().splitlines()[0]))
        length = int.from_bytes(head[:8], "little")
        return "target" in json.loads(head[8 : 8 + length])
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError):
        return True


def _named(names: list[str]) -> bool:
    if any(name.endswith(".npy") for name in names):
        return "target.npy" in names
    # Images by class lie in at least two folders.
    images = [name for name in names if name.lower().endswith(_IMAGES)]
    return len({name.rpartition("/")[0] for name in images}) > 1


def _parquet(data: Path) -> bool:
    try:
        from pyarrow.parquet import read_schema
    except ImportError:
        return True
    return not set(_LABELS).isdisjoint(read_schema(data).names)
