"""The files a job delivers: names, contents, sizes and digests."""

import hashlib
import re
import shutil
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruning.report.schema import ArtifactEntry

_CHUNK = 1 << 20
_STEM_BYTES = 150
_FORBIDDEN = frozenset('<>:"|?*')
_SUFFIX = re.compile(r"\.(onnx|pt2|tar|zip)$", re.IGNORECASE)


def stem(name: str) -> str:
    """A display name as the stem of a file name, without a model's suffix; never empty.

    What no file system takes, what a terminal would not show and what could lead elsewhere
    becomes `_`: separators, control characters, `<>:"|?*`, dots and dashes at the start.
    """
    base = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    base = _SUFFIX.sub("", base)
    base = "".join("_" if c in _FORBIDDEN or not c.isprintable() else c for c in base)
    base = base.encode(errors="replace")[:_STEM_BYTES].decode(errors="ignore")
    return base.lstrip(" .-").rstrip(" .") or "model"


@contextmanager
def appears_whole(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes its name at the end, or is gone after a failure."""
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def describe(path: Path, form: str) -> ArtifactEntry:
    """Name, size and digest of a written file."""
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return ArtifactEntry(
        name=path.name, bytes=path.stat().st_size, sha256=digest.hexdigest(), format=form
    )


def gzip_size(path: Path) -> int:
    """Bytes of the file after gzip -6, without writing it."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    size = sum(len(packer.compress(chunk)) for chunk in _chunks(path))
    return size + len(packer.flush())


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
