"""What a file or folder looks like, told from its content and never from its name. Torch-free."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

from pruning.errors import SecateurError
from pruning.formats.bundle import open_bundle
from pruning.formats.limits import Limits

MODELS = {
    "onnx": "an ONNX file (.onnx)",
    "pt2": "a torch.export archive (.pt2)",
    "huggingface": "a Hugging Face folder (config.json, safetensors, tokenizer.json)",
    "architecture": "architecture.json with its weights (.safetensors or a state dict .pt)",
}
"""Kinds of model that are read, as messages call them."""

DATA = {
    "npz": "a NumPy archive of plain arrays (.npz)",
    "safetensors": "a safetensors file of arrays",
    "jsonl": "JSON lines of texts (.jsonl)",
    "images": "images in class folders (.zip or .tar)",
    "parquet": "a Parquet file",
}
"""Kinds of data that are read."""

ACCEPTED_MODELS = "; ".join(MODELS.values())
ACCEPTED_DATA = "; ".join(DATA.values())

EXPORT = (
    "From PyTorch: torch.onnx.export(model, inputs, 'model.onnx'), or torch.export.save("
    "torch.export.export(model, inputs), 'model.pt2'), or model.save_pretrained(folder) for "
    "transformers, or `secateur export` for anything that can be traced. docs/formats.md has one "
    "command for each."
)
"""What to do with a model in a format that is not read."""

SAVE = (
    "Arrays: numpy.savez('data.npz', **inputs, target=labels). Texts: one JSON object a line with "
    "the field text. Images: a .zip of class folders. docs/prepare-data.md has examples."
)
"""What to do with data in a format that is not read."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

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
    (0, b"PAR1", "parquet"),
    (0, b"ARROW1", "an Arrow file"),
    (4, b"TFL3", "a TensorFlow Lite file"),
    (4, b"ORTM", "a model in onnxruntime's own format"),
    (257, b"ustar", "a tar archive"),
)
# Top-level fields of onnx.ModelProto and their wire types (0 varint, 2 length-delimited).
_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}


def recognise(path: Path) -> str:
    """A key of `MODELS` or `DATA`, `onnx truncated`, or a phrase that names what it looks like."""
    if path.is_dir():
        return _bundle_kind(path, "a folder")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(65_536)
    if not head:
        return "an empty file"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(path)
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return _bundle_kind(path, name) if name == "a tar archive" else name
    if head[0] == 0x80 and len(head) > 1 and head[1] in range(2, 6):
        return "a Python pickle (a PyTorch checkpoint of the old kind, or scikit-learn)"
    if _is_safetensors(head, size):
        return "safetensors"
    with path.open("rb") as file:
        fields = walk_model_fields(file, size)
    if fields is not None:
        return "onnx" if fields else "onnx truncated"
    if _is_text(head):
        start = head.lstrip()[:1]
        if start == b"{" and _is_jsonl(head, size):
            return "jsonl"
        return {b"{": "JSON text", b"<": "HTML or XML text"}.get(start, "a text file")
    return "a file of an unknown kind"


def unsupported(looks: str, accepted: str, hint: str) -> SecateurError:
    """The error for an upload that is not one of those accepted.

    Args:
        looks: What `recognise` said.
        accepted: `ACCEPTED_MODELS` or `ACCEPTED_DATA`.
        hint: `EXPORT` or `SAVE`.
    """
    named = (MODELS | DATA).get(looks, looks).replace("onnx truncated", "an ONNX file cut short")
    return SecateurError(
        "unsupported_format",
        f"This looks like {named}; what is read here: {accepted}.",
        hint=hint,
        accepted=accepted.split("; "),
    )


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
    if "archive_format" in leaves or any(leaf.startswith("serialized_") for leaf in leaves):
        return "pt2"
    if "data.pkl" in leaves:
        return "a PyTorch checkpoint (.pt) without architecture.json"
    if "keras_metadata.pb" in leaves or "model.weights.h5" in leaves:
        return "a Keras archive"
    if not names:
        return "npz"
    return _kind_of_names(names) or "a zip archive"


def _bundle_kind(path: Path, otherwise: str) -> str:
    limits = Limits()
    try:
        with open_bundle(path, limits, limits.image_files) as bundle:
            return _kind_of_names(bundle.names) or otherwise
    except SecateurError:
        return otherwise


def _kind_of_names(names: Iterable[str]) -> str | None:
    """What files of these names together are."""
    leaves = {name.rsplit("/", 1)[-1] for name in names}
    if "architecture.json" in leaves:
        return "architecture"
    if "config.json" in leaves or "model.safetensors.index.json" in leaves:
        return "huggingface"
    if any(leaf.endswith(".npy") for leaf in leaves):
        return "npz"
    if any(leaf.lower().endswith(IMAGE_SUFFIXES) for leaf in leaves):
        return "images"
    if any(leaf.endswith(".onnx") for leaf in leaves):
        return "an archive with an ONNX file inside"
    return None


def _is_jsonl(head: bytes, size: int) -> bool:
    """Whether the first line is one JSON object by itself.

    A first line longer than what was read of the file counts as one; the reader bounds it.
    """
    line, end, _ = head.lstrip().partition(b"\n")
    if not end and len(head) < size:
        return True
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


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
