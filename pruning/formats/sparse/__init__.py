"""The sparse file: one safetensors file that gives a model's own files back bit for bit.

docs/sparse.md describes the layout. NumPy only.
"""

from pruning.formats.sparse.choice import stored_bytes
from pruning.formats.sparse.pack import pack
from pruning.formats.sparse.unpack import read, unpack

__all__ = ["pack", "read", "stored_bytes", "unpack"]
