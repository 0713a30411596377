"""A .pt2 file to a module and back."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning.axes import Declared
from pruning.errors import SecateurError
from pruning.facts import TensorFact
from pruning.formats.contract import Imported
from pruning.formats.facts import SYMBOLIC_SIZE, module_facts
from pruning.formats.failures import Accepted
from pruning.formats.limits import Limits
from pruning.formats.pt2 import expressions
from pruning.formats.pt2.batched import batched
from pruning.formats.pt2.load import load
from pruning.formats.pt2.lower import Lowered, lowered
from pruning.formats.pt2.package import Package
from pruning.formats.pt2.values import TYPES

_INPUTS = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool")
_MOST_HINT = 4096


@dataclass
class Pt2Model(Imported):
    """A torch.export archive.

    Attributes:
        package: The checked parts of the file.
        lowered: How the module hangs together with the file.
    """

    package: Package = field(kw_only=True)
    lowered: Lowered = field(kw_only=True)

    @property
    def file_batch(self) -> int | None:
        """The number of samples that is written into the graph; None for any."""
        scaling = self.lowered.module.scaling
        return self.facts.batch if scaling is None else scaling.batch

    def write(self, folder: Path, stem: str) -> list[Path]:
        """Writes the checked archive with the module's numbers.

        Graph and types stay; sample inputs, guards, stack traces and module names are left out.

        Raises:
            SecateurError: `weights_non_finite` where the file's type can't hold a value.
        """
        path = folder / f"{stem}.pt2"
        aside = folder / f".{path.name}.part"
        self.package.write(aside, plain=False, payload=self._payload)
        aside.replace(path)
        return [path]

    def tensors(self) -> Mapping[str, np.ndarray]:
        """Every stored tensor by its name, in the file's own type."""
        return _Tensors(self.package)

    def skeleton(self) -> object:
        """The checked documents: graph, tables of tensors, extra files."""
        return self.package.skeleton

    def _payload(self, member: str, data: bytes) -> bytes:
        changed = bytearray(data)
        for name, stored in self.package.stored.items():
            if stored.member != member or name not in self.lowered.paths:
                continue
            value = _at(self.module, self.lowered.paths[name][0])
            if name in self.lowered.transposed:
                value = value.t()
            target = stored.view(changed)
            with np.errstate(over="ignore"):
                rounded = value.detach().cpu().numpy().astype(stored.dtype)
            if stored.parameter and not np.isfinite(rounded.astype(np.complex128)).all():
                raise SecateurError(
                    "weights_non_finite",
                    f"A value of {name} is not finite in {TYPES[stored.type][0]}.",
                    where=name,
                    hint="Use a smaller learning rate, or export the model in float32.",
                )
            if stored.size:
                target[...] = rounded
        return bytes(changed)


def read(source: Path, limits: Limits, declared: Declared | None = None) -> Pt2Model:
    """Reads a torch.export archive (.pt2) through checks that leave nothing unread to torch.

    Args:
        source: The file.
        limits: Sizes that are refused.
        declared: The axis of the samples by input, where the user says.

    Raises:
        SecateurError: `unsupported_format`, `model_*`, `operator_*`, `opset_unsupported`,
            `weights_non_finite`; with the node, tensor or member in `where`.
    """
    package = Package(source, limits)
    inputs = _inputs(package)
    package.check_finite({n for n, s in package.stored.items() if s.parameter})
    found = lowered(load(package), package.stored)
    taken = set(found.module.input_names)
    inputs = [fact for fact in inputs if fact.name in taken]
    names = {path: name for name, paths in found.paths.items() for path in paths}
    weights = {
        path: names[path]
        for path, _ in found.module.named_parameters(remove_duplicate=False)
        if path in names
    }
    hints = _hints(package)
    facts = module_facts(
        found.module,
        inputs,
        format="pt2",
        version="{major}.{minor}".format(**package.program.document["schema_version"]),
        weight_names=weights,
        dtypes={name: TYPES[stored.type][0] for name, stored in package.stored.items()},
        limits=limits,
        size=lambda name: hints.get(name, SYMBOLIC_SIZE),
        declared=declared,
        batched=partial(batched, found.module),
        producer=f"torch {package.program.document['torch_version']}".strip(),
    )
    found.module.accepted = Accepted.of(facts.inputs)
    facts.operators = dict(sorted(package.program.operators.items()))
    return Pt2Model(found.module, facts, weights, source, package=package, lowered=found)


class _Tensors(Mapping[str, np.ndarray]):
    """The stored tensors, each read when asked for."""

    def __init__(self, package: Package) -> None:
        self._package = package

    def __getitem__(self, name: str) -> np.ndarray:
        return self._package.tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._package.stored)

    def __len__(self) -> int:
        return len(self._package.stored)


def _inputs(package: Package) -> list[TensorFact]:
    """The tensors that the graph takes from its caller."""
    graph = package.program.document["graph_module"]
    metas = graph["graph"]["tensor_values"]
    facts = []
    for spec in graph["signature"]["input_specs"]:
        arg = spec.get("user_input", {}).get("arg", {})
        if "as_tensor" not in arg:
            continue
        name = arg["as_tensor"]["name"]
        meta = metas[name]
        dtype = TYPES[meta["dtype"]][0]
        if dtype not in _INPUTS:
            raise SecateurError(
                "operator_attribute_unsupported",
                f"The input {name} has type {dtype}.",
                where=name,
                hint=f"Inputs of type {', '.join(_INPUTS)} are read.",
            )
        shape = [_size(size) for size in meta["sizes"]]
        facts.append(TensorFact(name=name, dtype=dtype, shape=shape))
    if math.prod(s for f in facts for s in f.shape if isinstance(s, int)) > 2**48:
        raise SecateurError("model_too_large", "The inputs are too large.", where="inputs")
    return facts


def _size(size: dict[str, Any]) -> int | str:
    if "as_int" in size:
        return int(size["as_int"])
    return expressions.symbol(size["as_expr"]["expr_str"]) or "?"


def _hints(package: Package) -> dict[str, int]:
    """The sizes of symbols when the program was exported, where they are small enough to try."""
    hints = {}
    for meta in package.program.document["graph_module"]["graph"]["tensor_values"].values():
        for size in meta["sizes"]:
            made = size.get("as_expr", {})
            name = expressions.symbol(made.get("expr_str", ""))
            if name and made["hint"] and 0 < made["hint"]["as_int"] <= _MOST_HINT:
                hints[name] = made["hint"]["as_int"]
    return hints


def _at(module: torch.nn.Module, path: str) -> Tensor:
    owner, _, leaf = path.rpartition(".")
    found: Tensor = getattr(module.get_submodule(owner), leaf)
    return found
