"""A Hugging Face folder as uploaded and as a module."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pruning.formats.bundle import Bundle, open_bundle, pack
from pruning.formats.contract import Imported
from pruning.formats.huggingface.shards import Shards
from pruning.formats.huggingface.weights import Bound, changed
from pruning.formats.limits import Limits
from pruning.formats.safetensors import rewrite

_OTHER_WEIGHTS = (
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".ot", ".onnx", ".onnx_data",
    ".gguf", ".tflite", ".pb", ".safetensors",
)  # fmt: skip


@dataclass
class HuggingFaceModel(Imported):
    """What `read` gives.

    Attributes:
        shards: The files' tensors.
        bounds: Which of them each parameter is.
        limits: What the upload was read with.
        scratch: Copies of an archive's weight files, as long as this object lives.
    """

    shards: Shards = field(kw_only=True)
    bounds: list[Bound] = field(kw_only=True)
    limits: Limits = field(kw_only=True)
    scratch: tempfile.TemporaryDirectory[str] | None = field(kw_only=True)

    def write(self, folder: Path, stem: str) -> list[Path]:
        """The upload in its own container with the module's weights; see `Imported.write`.

        Copies of the network in other formats are left out: they would still be the dense one.
        """
        new = changed(self.module, self.bounds, self.shards)
        with (
            tempfile.TemporaryDirectory() as scratch,
            open_bundle(self.source, self.limits) as bundle,
        ):
            members = {}
            for name in _kept(bundle, self.shards):
                members[name] = bundle.path(name, Path(scratch))
            for number, shard in enumerate(self.shards.shards):
                part = {n: new[n] for n in shard.header.entries if n in new}
                target = Path(scratch) / f"weights-{number}"
                rewrite(shard.path, target, part, self.limits)
                members[shard.name] = target
            single = bundle.kind != "folder"
            target = folder / f"{stem}.{bundle.kind}" if single else folder
            return pack(bundle.kind, target, members, bundle.prefix)

    def tensors(self) -> Mapping[str, np.ndarray]:
        """Every tensor of every shard; see `Imported.tensors`."""
        return self.shards

    def skeleton(self) -> object:
        """Container, names, the weight files' headers and the other files' digests."""
        with open_bundle(self.source, self.limits) as bundle:
            others = {name: _digest(bundle, name) for name in _kept(bundle, self.shards)}
            return (bundle.kind, bundle.prefix, others, [
                (shard.name, list(shard.header.entries.values()), shard.header.metadata)
                for shard in self.shards.shards
            ])  # fmt: skip


def _kept(bundle: Bundle, shards: Shards) -> list[str]:
    """The files that are returned as they came."""
    weights = {shard.name for shard in shards.shards}
    return [n for n in bundle.names if n not in weights and not n.endswith(_OTHER_WEIGHTS)]


def _digest(bundle: Bundle, name: str) -> str:
    digest = hashlib.sha256()
    with bundle.open(name) as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
