"""What a file or folder looks like, told from its content and never from its name. Torch-free."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

from pruning.errors import SecateurError
from pruning.formats.bundle import first_names, open_bundle
from pruning.formats.limits import Limits
from pruning.formats.magic import HEAD, by_magic, is_text

_TOLD_BY = 2_000
"""Files of a .tar that tell what it is: more than a model has; images may be 100 times as many."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

# Top-level fields of onnx.ModelProto and their wire types (0 varint, 2 length-delimited).
_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}


def recognise(path: Path) -> str:
    """A key of `MODELS` or `DATA`, `onnx truncated`, or a phrase that names what it looks like."""
    if path.is_dir():
        return _folder_kind(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return "an empty file"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(path)
    found = by_magic(head, size)
    if found is not None:
        return _tar_kind(path, found) if found == "a tar archive" else found
    with path.open("rb") as file:
        fields = walk_model_fields(file, size)
    if fields is not None:
        return "onnx" if fields else "onnx truncated"
    if is_text(head):
        start = head.lstrip()[:1]
        if start == b"{" and _is_jsonl(head, size):
            return "jsonl"
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
    if "archive_format" in leaves or any(leaf.startswith("serialized_") for leaf in leaves):
        return "pt2"
    if "data.pkl" in leaves:
        return "a PyTorch checkpoint (.pt) without architecture.json"
    if "keras_metadata.pb" in leaves or "model.weights.h5" in leaves:
        return "a Keras archive"
    if not names:
        return "npz"
    return _kind_of_names(names) or "a zip archive"


def _folder_kind(path: Path) -> str:
    limits = Limits()
    try:
        with open_bundle(path, limits, limits.image_files) as bundle:
            return _kind_of_names(bundle.names) or "a folder"
    except SecateurError:
        return "a folder"


def _tar_kind(path: Path, otherwise: str) -> str:
    try:
        return _kind_of_names(first_names(path, _TOLD_BY)) or otherwise
    except SecateurError:
        return otherwise


def _kind_of_names(names: Iterable[str]) -> str | None:
    """What files of these names together are."""
    leaves = {name.rsplit("/", 1)[-1] for name in names}
    if "architecture.json" in leaves:
        return "architecture"
    onnx = any(leaf.lower().endswith(".onnx") for leaf in leaves)
    if onnx and not any(leaf.endswith(".safetensors") for leaf in leaves):
        return "onnx"
    if "config.json" in leaves or "model.safetensors.index.json" in leaves:
        return "huggingface"
    if any(leaf.endswith(".npy") for leaf in leaves):
        return "npz"
    if any(leaf.lower().endswith(IMAGE_SUFFIXES) for leaf in leaves):
        return "images"
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
