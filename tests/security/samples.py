"""One small valid upload of each kind: what hostile ones are made from."""

import base64
import io
import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Sample:
    """A valid upload: `make(path)` writes it to the path, a file or a folder, and returns it."""

    kind: str
    make: Callable[[Path], Path]


def environment() -> dict[str, str]:
    """For child processes: this tree first, one thread, nothing from a network."""
    here = str(Path(__file__).resolve().parents[2])
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def network() -> nn.Module:
    """A network with every common kind of layer, small."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.Dropout(0.1),
        nn.Linear(8, 3),
    ).eval()


def onnx(path: Path) -> Path:
    """A file of the TorchScript exporter."""
    buffer = io.BytesIO()
    torch.onnx.export(
        network(),
        (torch.zeros(2, 1, 8, 8),),
        buffer,
        input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
        dynamo=False,
    )
    path.write_bytes(buffer.getvalue())
    return path


def pt2(path: Path) -> Path:
    """An archive of torch.export."""
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        network(), (torch.zeros(4, 1, 8, 8),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, path.with_suffix(".pt2"))
    return path.with_suffix(".pt2").rename(path)


def huggingface(path: Path) -> Path:
    """A folder of a small BERT with a tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    BertForSequenceClassification(config).save_pretrained(path)
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "a", "b", "c"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def charsmap(text: bytes) -> str:
    """A map of the letter a to a text: units of a double array, and the text."""
    units = [0] * 512
    units[0] = 256 << 10  # the root: children at 256 xor their label
    units[256 ^ 97] = (64 << 10) | 1 << 8 | 97  # a key ends here, its value at the offset
    units[(256 ^ 97) ^ 64] = 1 << 31
    trie = struct.pack("<512I", *units)
    return base64.b64encode(struct.pack("<I", len(trie)) + trie + text + b"\0").decode()


def tokenizer(path: Path) -> Path:
    """The same folder with a tokenizer of many parts."""
    huggingface(path)
    file = path / "tokenizer.json"
    value = json.loads(file.read_text())
    special = {"SpecialToken": {"id": "[UNK]", "type_id": 0}}
    texts = [{"Sequence": {"id": text, "type_id": n}} for n, text in enumerate("AB")]
    replace = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    mapped = {"type": "Precompiled", "precompiled_charsmap": charsmap(b"bb")}
    value["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "NFKC"}, mapped, replace, {"type": "Prepend", "prepend": "▁"}],
    }
    value["pre_tokenizer"] = {
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True,
    }  # fmt: skip
    value["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [special, texts[0]],
        "pair": [special, *texts],
        "special_tokens": {"[UNK]": {"id": "[UNK]", "ids": [1], "tokens": ["[UNK]"]}},
    }
    value["model"] = {
        "type": "Unigram", "unk_id": 0, "vocab": [["▁", -1.0], ["b", -2.0]], "byte_fallback": False,
    }  # fmt: skip
    file.write_text(json.dumps(value))
    return path


def architecture(path: Path) -> Path:
    """A folder with architecture.json and safetensors."""
    from pruning.formats.architecture import export

    path.mkdir()
    export(network(), (torch.zeros(2, 1, 8, 8),), path)
    return path


def state_dict(path: Path) -> Path:
    """A folder with architecture.json and a state dict."""
    architecture(path)
    next(path.glob("*.safetensors")).unlink()
    torch.save(network().state_dict(), path / "model.pt")
    return path


def npz(path: Path) -> Path:
    """Arrays and labels."""
    with path.open("wb") as file:
        np.savez(file, x=np.ones((6, 1, 8, 8), np.float32), target=np.arange(6) % 3)
    return path


def safetensors(path: Path) -> Path:
    """Arrays and labels."""
    from safetensors.numpy import save_file

    save_file({"x": np.ones((6, 1, 8, 8), np.float32), "target": np.arange(6) % 3}, path)
    return path


def jsonl(path: Path) -> Path:
    """Texts and labels."""
    lines = (json.dumps({"text": "a b c " * i, "label": i % 2}) for i in range(1, 5))
    path.write_text("\n".join(lines) + "\n")
    return path


def images(path: Path) -> Path:
    """Images in two class folders."""
    from PIL import Image

    with zipfile.ZipFile(path, "w") as archive:
        for label in ("cat", "dog"):
            for index in range(2):
                buffer = io.BytesIO()
                Image.new("RGB", (8, 8), (index * 90, 20, 30)).save(buffer, "PNG")
                archive.writestr(f"{label}/{index}.png", buffer.getvalue())
    return path


def parquet(path: Path) -> Path:
    """Columns and labels."""
    import pyarrow
    from pyarrow.parquet import write_table

    rows = [[float(i)] * 4 for i in range(6)]
    write_table(pyarrow.table({"x": rows, "target": list(range(6))}), path)
    return path


def parquet_texts(path: Path) -> Path:
    """Texts behind their lengths, and labels as differences, in pages of version 2."""
    import pyarrow
    from pyarrow.parquet import write_table

    table = pyarrow.table({"text": [f"a b {i}" for i in range(9)], "label": [0, 1, 2] * 3})
    write_table(
        table, path, use_dictionary=False, data_page_version="2.0",
        column_encoding={"text": "DELTA_LENGTH_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED"},
    )  # fmt: skip
    return path


SAMPLES = {
    "onnx": Sample("model", onnx),
    "pt2": Sample("model", pt2),
    "huggingface": Sample("model", huggingface),
    "tokenizer": Sample("model", tokenizer),
    "architecture": Sample("model", architecture),
    "state_dict": Sample("model", state_dict),
    "npz": Sample("data", npz),
    "safetensors": Sample("data", safetensors),
    "jsonl": Sample("data", jsonl),
    "images": Sample("data", images),
    "parquet": Sample("data", parquet),
    "parquet_texts": Sample("data", parquet_texts),
}

if __name__ == "__main__":
    print(SAMPLES[sys.argv[1]].make(Path(sys.argv[2])))
