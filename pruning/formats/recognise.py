"""What a file looks like, told from its first bytes and never from its name. Torch-free."""

import zipfile
from pathlib import Path

ACCEPTED_MODELS = "one self-contained ONNX file (.onnx)"
ACCEPTED_DATA = "one NumPy archive of plain arrays (.npz)"

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x93NUMPY", "a single NumPy array (.npy)"),
    (0, b"\x89HDF\r\n", "an HDF5 file (Keras)"),
    (0, b"GGUF", "a GGUF file"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ", "an xz file"),
    (0, b"(\xb5/\xfd", "a zstandard file"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x7fELF", "an executable"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"ARROW1", "an Arrow file"),
    (4, b"TFL3", "a TensorFlow Lite file"),
    (4, b"ORTM", "a model in onnxruntime's own format"),
    (257, b"ustar", "a tar archive"),
)
# Top-level fields of onnx.ModelProto and their wire types (0 varint, 2 length-delimited).
_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}


def recognise(path: Path) -> str:
    """`onnx`, `onnx truncated`, `npz`, or a phrase that names what the file looks like."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(65_536)
    if not head:
        return "an empty file"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(path)
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    if head[0] == 0x80 and len(head) > 1 and head[1] in range(2, 6):
        return "a Python pickle (a PyTorch checkpoint of the old kind, or scikit-learn)"
    if _is_safetensors(head, size):
        return "a safetensors file (weights without a graph)"
    with path.open("rb") as file:
        fields = walk_model_fields(file, size)
    if fields is not None:
        return "onnx" if fields else "onnx truncated"
    if _is_text(head):
        start = head.lstrip()[:1]
        return {b"{": "JSON text", b"<": "HTML or XML text"}.get(start, "a text file")
    return "a file of an unknown kind"


def walk_model_fields(file, size: int) -> bool | None:  # type: ignore[no-untyped-def]
    """Steps over the top-level fields of a would-be ONNX file without reading their content.

    Args:
        file: Binary file at its start, seekable.
        size: Its length in bytes.

    Returns:
        True for a whole sequence of ModelProto fields, False for one that ends inside a field,
        None where something stands that ModelProto has no field for.
    """
    seen = 0
    while file.tell() < size:
        tag = _varint(file)
        if tag is None:
            return False if seen else None
        field, wire = tag >> 3, tag & 7
        if _MODEL_FIELDS.get(field) != wire:
            return None
        value = _varint(file)
        if value is None:
            return False if seen else None
        if wire == 2:
            if value > size - file.tell():
                # A first field that runs over the end is as likely noise as a truncated model.
                return False if seen or field == 7 else None
            file.seek(value, 1)
        elif field == 1 and value > 1_000:
            return None
        seen += 1
    return True


def _varint(file) -> int | None:  # type: ignore[no-untyped-def]
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
    return 1 << 70


def _zip_kind(path: Path) -> str:
    from pruning.data.archive import open_zip

    try:
        with open_zip(path) as archive:
            # zipfile cuts names at a NUL; the reader shall see and refuse them whole.
            names = [info.orig_filename for info in archive.infolist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError):
        return "npz"  # a damaged zip: the npz reader names the damage
    leaves = {name.rsplit("/", 1)[-1] for name in names}
    if "data.pkl" in leaves:
        return "a PyTorch checkpoint (pickle in a zip)"
    if "keras_metadata.pb" in leaves or "model.weights.h5" in leaves:
        return "a Keras archive"
    if any(leaf.startswith("serialized_") or leaf == "archive_format" for leaf in leaves):
        return "a torch.export archive (.pt2)"
    if not names or any(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.endswith(".onnx") for name in names):
        return "a zip archive with an ONNX file inside"
    return "a zip archive"


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return len(head) > 9 and head[8:9] == b"{" and 2 <= length <= size - 8


def _is_text(head: bytes) -> bool:
    try:
        text = head[:4096].decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head[:4096]) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c.isspace() for c in text)
