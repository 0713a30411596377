"""The sparse file: one safetensors file that gives a model's own files back bit for bit.

docs/sparse.md describes the layout. NumPy only.
"""

from pruning.formats.sparse.choice import stored_bytes
from pruning.formats.sparse.pack import pack, packed_bytes
from pruning.formats.sparse.unpack import read, unpack

__all__ = ["pack", "packed_bytes", "read", "stored_bytes", "unpack"]
