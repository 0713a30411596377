"""What the first bytes of a file give away, and what is read here. Torch-free, opens nothing."""

from pruning.errors import SecateurError

HEAD = 65_536
"""Bytes from the start of a file that tell what it is."""

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


def by_magic(head: bytes, size: int) -> str | None:
    """A key of `DATA` or a phrase, where the first bytes alone say what a file is.

    Args:
        head: The first `HEAD` bytes, or all.
        size: Bytes of the whole file.
    """
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in range(2, 6):
        return "a Python pickle (a PyTorch checkpoint of the old kind, or scikit-learn)"
    if _is_safetensors(head, size):
        return "safetensors"
    return None


def refuse_model(head: bytes, size: int) -> None:
    """Refuses at once what can't be a model, whatever follows its first bytes.

    Raises:
        SecateurError: `unsupported_format`.
    """
    found = by_magic(head, size)
    if found is not None and found != "a tar archive":
        raise unsupported(found, ACCEPTED_MODELS, EXPORT)


def refuse_data(head: bytes, size: int) -> None:
    """Refuses at once what can't be a dataset, whatever follows its first bytes.

    Raises:
        SecateurError: `unsupported_format`.
    """
    found = by_magic(head, size)
    if found is not None and found != "a tar archive" and found not in DATA:
        raise unsupported(found, ACCEPTED_DATA, SAVE)


def unsupported(looks: str, accepted: str, hint: str) -> SecateurError:
    """The error for an upload that is not one of those accepted.

    Args:
        looks: What the file looks like: a key of `MODELS` or `DATA`, or a phrase.
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


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return len(head) > 9 and head[8:9] == b"{" and 2 <= length <= size - 8


def is_text(head: bytes) -> bool:
    """Whether the bytes are text in UTF-8."""
    try:
        text = head[:4096].decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if error.start < len(head[:4096]) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c.isspace() for c in text)
