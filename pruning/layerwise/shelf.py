"""Where the activations of waiting forward passes lie: in memory, and on disk above a limit."""

import tempfile
from pathlib import Path

from torch import UntypedStorage


class Shelf:
    """Takes the contents of storages away and puts them back; whoever views them stays as it is.

    Args:
        limit: Bytes of memory; what goes beyond them lies in files. None: no limit.
        folder: For the files, which have no name and vanish with the process.

    Attributes:
        held: Bytes in memory now.
        written: Bytes in files now.
    """

    def __init__(self, limit: int | None = None, folder: Path | None = None) -> None:
        self.limit, self.folder = limit, folder
        self.held = self.written = 0

    def take(self, storages: list[UntypedStorage]) -> list["Parcel"]:
        """Empty the storages, as far as they use memory that is needed elsewhere."""
        return [p for s in storages if (p := self._take(s)) is not None]

    def _take(self, storage: UntypedStorage) -> "Parcel | None":
        size = storage.nbytes()
        if size == 0 or not storage.resizable():
            return None
        in_memory = self.limit is None or self.held + size <= self.limit
        if in_memory and storage.device.type == "cpu":
            self.held += size
            return Parcel(self, storage, None, size, in_memory)
        if in_memory:
            self.held += size
            copy = storage.cpu()
        else:
            self.written += size
            with tempfile.NamedTemporaryFile(dir=self.folder) as file:
                copy = UntypedStorage.from_file(file.name, shared=True, nbytes=size)
            copy.copy_(storage, False)
        storage.resize_(0)
        return Parcel(self, storage, copy, size, in_memory)


class Parcel:
    """The contents of one storage while it is on the shelf; None if they stayed where they are."""

    def __init__(
        self,
        shelf: Shelf,
        storage: UntypedStorage,
        contents: UntypedStorage | None,
        size: int,
        in_memory: bool,
    ) -> None:
        self.shelf, self.storage, self.contents = shelf, storage, contents
        self.size, self.in_memory = size, in_memory

    def back(self) -> None:
        """Fill the storage again."""
        if self.in_memory:
            self.shelf.held -= self.size
        else:
            self.shelf.written -= self.size
        if self.contents is not None:
            self.storage.resize_(self.size)
            self.storage.copy_(self.contents, False)
            self.contents = None
