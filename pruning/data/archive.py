"""A zip archive opened with bounded memory, whatever its directory claims. Torch-free."""

import io
import zipfile
from pathlib import Path

# zipfile reads the whole central directory at once, at the size that the file itself announces.
LARGEST_READ = 4 * 1024 * 1024


class BoundedFile(io.FileIO):
    """A file that refuses single reads over `LARGEST_READ`."""

    def read(self, size: int | None = -1, /) -> bytes:  # type: ignore[override]
        """As `io.FileIO.read`; raises zipfile.BadZipFile for a read that is too long."""
        if size is None or size < 0:
            size = self._remaining()
        if size > LARGEST_READ:
            raise zipfile.BadZipFile(
                f"its directory takes {size} bytes, over {LARGEST_READ}; pack so many files as .tar"
            )
        parts = []
        while size > 0 and (part := super().read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _remaining(self) -> int:
        here = self.tell()
        end = self.seek(0, 2)
        self.seek(here)
        return end - here


def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive at `path`; reading its directory can't allocate without bound.

    Raises:
        zipfile.BadZipFile: Not a zip archive, damaged, or a directory over `LARGEST_READ` bytes.
    """
    file = BoundedFile(path)
    try:
        return _OwningZip(file)
    except BaseException:
        file.close()
        raise


class _OwningZip(zipfile.ZipFile):
    """Closes the file it was given."""

    def __init__(self, file: BoundedFile) -> None:
        self._owned = file
        super().__init__(file)

    def close(self) -> None:
        """Closes archive and file."""
        super().close()
        self._owned.close()
