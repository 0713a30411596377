"""Files by the SHA-256 of their bytes, which are checked whenever they are read.

`contract` is the interface, `local` the folder behind it. `reading` hands out bytes that were
checked, by `chunk_digests` where only a part is read; `quarantine` holds what was found damaged.
"""

from store.blobs.contract import CHUNK, Blobs, BlobWriter, StoredBlob, put, put_file
from store.blobs.damage import DamagedBlobError
from store.blobs.local import LocalBlobs
from store.blobs.reading import BlobReader

__all__ = [
    "CHUNK",
    "BlobReader",
    "BlobWriter",
    "Blobs",
    "DamagedBlobError",
    "LocalBlobs",
    "StoredBlob",
    "put",
    "put_file",
]
