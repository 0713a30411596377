"""The upload again, with the module's numbers: the same files, nothing else of them changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pruning.errors import SecateurError
from pruning.formats import safetensors, state_dict
from pruning.formats.architecture.fill import computed
from pruning.formats.architecture.module import tensor_at
from pruning.formats.architecture.schema import FILE, shown
from pruning.formats.bundle import Kind, pack
from pruning.formats.contract import Imported
from pruning.formats.limits import Limits


@dataclass(frozen=True)
class Weights:
    """The file of numbers: its tensors, and the state dict they came in, if they did."""

    name: str
    path: Path
    arrays: safetensors.Arrays
    metadata: Mapping[str, str]
    state: state_dict.StateDict | None


@dataclass
class ImportedArchitecture(Imported):
    """A network of architecture.json and its weights.

    Attributes:
        names: The path of each parameter and buffer that the file holds, and its name there.
        weights: The file of numbers.
        architecture: architecture.json as uploaded.
        kind: How the files came.
        prefix: The folder in the archive that they lay in.
        limits: Those it was read with.
        scratch: Where unpacked files lie as long as this object lives.
    """

    names: dict[str, str] = field(kw_only=True)
    weights: Weights = field(kw_only=True)
    architecture: bytes = field(kw_only=True)
    kind: Kind = field(kw_only=True)
    prefix: str = field(kw_only=True)
    limits: Limits = field(kw_only=True)
    scratch: "TemporaryDirectory[str]" = field(kw_only=True, repr=False)

    def write(self, folder: Path, stem: str) -> list[Path]:
        """See `Imported.write`; one archive, or both files where a folder came."""
        changed = self._changed()
        with TemporaryDirectory(prefix="architecture-") as aside:
            graph, weights = Path(aside) / FILE, Path(aside) / "weights"
            graph.write_bytes(self.architecture)
            if self.weights.state is not None:
                state_dict.rewrite(self.weights.state, weights, changed)
            else:
                safetensors.rewrite(self.weights.path, weights, changed, self.limits)
            target = folder if self.kind == "folder" else folder / f"{stem}.{self.kind}"
            return pack(self.kind, target, {FILE: graph, self.weights.name: weights}, self.prefix)

    def tensors(self) -> Mapping[str, np.ndarray]:
        """See `Imported.tensors`."""
        return self.weights.arrays

    def skeleton(self) -> object:
        """The graph, names, types and shapes, and what surrounds the numbers in their file."""
        entries = {n: (a.dtype.name, a.shape) for n, a in self.weights.arrays.items()}
        return (
            self.kind, self.prefix, self.architecture, self.weights.name, entries,
            dict(self.weights.metadata), self._surroundings(),
        )  # fmt: skip

    def _surroundings(self) -> dict[str, bytes]:
        state = self.weights.state
        if state is None:
            return {}
        return {name: state.member(name) for name in state.records if not name.startswith("data/")}

    def _changed(self) -> dict[str, np.ndarray]:
        changed = {}
        for path, name in self.names.items():
            value = tensor_at(self.module, path).detach().cpu().numpy()
            new = _merged(value, self.weights.arrays[name], name)
            if new is not None:
                changed[name] = new
        return changed


def _merged(value: np.ndarray, original: np.ndarray, name: str) -> np.ndarray | None:
    """The file's tensor with the new numbers, or None where there are none.

    Elements that are bit for bit as imported keep the file's bits; zeros are written as +0.
    """
    imported = computed(original)
    given = np.ascontiguousarray(value, dtype=imported.dtype)
    bits = np.dtype(f"u{imported.dtype.itemsize}")
    changed = given.reshape(-1).view(bits) != imported.reshape(-1).view(bits)
    if not changed.any():
        return None
    given = np.where(given == 0, given.dtype.type(0), given)
    with np.errstate(over="ignore"):
        narrow = given.astype(original.dtype)
    where = changed.reshape(original.shape)
    if not np.isfinite(narrow[where]).all():
        raise SecateurError(
            "weights_non_finite",
            f"A value of {shown(name)!r} is not finite or too large for {original.dtype.name}.",
            where=shown(name),
        )
    return np.ascontiguousarray(np.where(where, narrow, original))
