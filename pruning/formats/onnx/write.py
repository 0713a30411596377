"""A module's parameters back into the user's own file; nothing else of it changes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper
from torch import nn

from pruning.errors import SecateurError
from pruning.formats.onnx.binding import Binding, Use, to_tensor
from pruning.formats.onnx.graph import HELD, constant_tensor, first_output, subgraphs, to_array
from pruning.formats.onnx.parse import graphs, shown

if TYPE_CHECKING:
    from pruning.formats.onnx.read import ImportedModel

UNSHARED = "/unshared_"
"""What follows the name of a value, with a number, in the name of a tensor that was shared."""


def write_onnx(
    imported: "ImportedModel", path: Path | str, module: nn.Module | None = None
) -> None:
    """Writes the uploaded model with the module's current parameters and statistics.

    The file appears complete or not at all.

    Args:
        imported: What `read_onnx` gave.
        path: Where to.
        module: A copy of `imported.module` whose values are written; that one where left out.

    Raises:
        SecateurError: As `onnx_bytes`.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.part")
    with aside.open("wb") as file:
        file.write(onnx_bytes(imported, module))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def onnx_bytes(imported: "ImportedModel", module: nn.Module | None = None) -> bytes:
    """The bytes that `write_onnx` writes; the same values give the same bytes.

    Raises:
        SecateurError: As `changed_model`.
    """
    return changed_model(imported, module).SerializeToString(deterministic=True)


def changed_model(imported: "ImportedModel", module: nn.Module | None = None) -> ModelProto:
    """The uploaded model with the module's current parameters and statistics.

    A tensor that stood for several parameters keeps the first one's values; parameters that have
    come to differ from it get tensors of their own.

    Raises:
        SecateurError: `weights_non_finite` where a new value is not finite in the file's type.
    """
    module = module or imported.module
    proto = ModelProto()
    proto.CopyFrom(imported.proto)
    holders = _Holders(proto)
    groups: dict[str, list[list[Binding]]] = {}
    for binding in imported.bindings:
        sharers = groups.setdefault(binding.source, [])
        keep = binding.source in imported.frozen
        same = next((s for s in sharers if all(_beside(b, binding, keep) for b in s)), None)
        if same is None:
            sharers.append([binding])
        else:
            same.append(binding)
    for source, sharers in groups.items():
        original = to_array(holders.tensor(source))
        values = [_written(module, bindings, original) for bindings in sharers]
        if all(value is None for value in values):
            continue
        first = values[0]
        if source not in imported.frozen and all(_same(first, value) for value in values):
            assert first is not None
            holders.replace(source, first)
            continue
        keep = source in imported.frozen
        if not keep and first is not None:
            holders.replace(source, first)
        for bindings, value in list(zip(sharers, values, strict=True))[0 if keep else 1 :]:
            if not _same(value, None if keep else first):
                for binding in bindings:
                    holders.unshare(binding, original if value is None else value)
    return proto


def _beside(one: Binding, other: Binding, kept: bool) -> bool:
    """Whether two parameters are parts of a tensor that can hold the values of both.

    Parameters out of one input of one node are, and parts that the graph cuts it into; where the
    tensor is `kept` for other readers, each part gets a tensor of its own.
    """
    if one.uses == other.uses:
        return True
    parts = one.seen.part, other.seen.part
    return not kept and all(parts) and parts[0] != parts[1]


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.tobytes() == b.tobytes()


def _written(module: nn.Module, bindings: list[Binding], original: np.ndarray) -> np.ndarray | None:
    """The tensor with the values of all its parts, None where nothing has changed."""
    result = None
    for binding in bindings:
        before = original if result is None else result
        try:
            changed = to_tensor(_value(module, binding.path), before, binding.route)
        except SecateurError as error:
            raise SecateurError(error.code, error.message, where=shown(binding.source)) from None
        result = result if changed is None else changed
    return result


def inference_copy(proto: ModelProto, outputs: Sequence[str] = ()) -> ModelProto:
    """The model with batch norm and dropout in evaluation mode, as the module computes it.

    Args:
        proto: With all of its numbers.
        outputs: Values that it shall put out too.

    Files exported in training mode keep their flags; a runtime that follows these would drop
    numbers at random and take the statistics of the batch.
    """
    copy = ModelProto()
    copy.CopyFrom(proto)
    given = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in outputs if name not in given
    )
    for graph in graphs(copy):
        for node in graph.node:
            if node.op_type == "BatchNormalization":
                kept = [a for a in node.attribute if a.name != "training_mode"]
                del node.attribute[:], node.output[1:]
                node.attribute.extend(kept)
            elif node.op_type == "Dropout":
                del node.input[2:]
    return copy


def held_tensors(proto: ModelProto) -> dict[str, np.ndarray]:
    """Initialisers and Constant nodes by name, of the types that safetensors has."""
    holders = _Holders(proto)
    found = {}
    for name in (*holders.initializers, *holders.constants):
        tensor = holders.tensor(name)
        if tensor.data_type in HELD:
            found[name] = to_array(tensor)
    return found


class _Holders:
    """Finds where the file keeps a tensor: an initialiser or a Constant node's attribute."""

    def __init__(self, proto: ModelProto) -> None:
        self.proto = proto
        self.initializers: dict[str, TensorProto] = {}
        self.constants: dict[str, NodeProto] = {}
        self.nodes: dict[tuple[tuple[str, ...], str], NodeProto] = {}
        self._names: set[str] = set()
        self._own: dict[tuple[str, bytes], str] = {}
        self._enter(proto.graph, ())

    def _enter(self, graph: GraphProto, path: tuple[str, ...]) -> None:
        for tensor in graph.initializer:
            self.initializers["/".join((*path, tensor.name))] = tensor
            self._names.add(tensor.name)
        for node in graph.node:
            self._names.update((*node.input, *node.output))
            output = first_output(node)
            self.nodes[path, output] = node
            if node.op_type == "Constant":
                self.constants["/".join((*path, output))] = node
            for name, inner in subgraphs(node):
                self._enter(inner, (*path, output, name))

    def tensor(self, name: str) -> TensorProto:
        if name in self.initializers:
            return self.initializers[name]
        return constant_tensor(self.constants[name])

    def replace(self, name: str, array: np.ndarray) -> None:
        if name in self.initializers:
            _fill(self.initializers[name], array)
            return
        attribute = self.constants[name].attribute[0]
        if attribute.type == AttributeProto.TENSOR:
            _fill(attribute.t, array)
        elif attribute.type == AttributeProto.FLOATS:
            attribute.floats[:] = array.tolist()
        else:
            attribute.f = array.item()

    def unshare(self, binding: Binding, array: np.ndarray) -> None:
        """Gives the inputs that read the tensor for this parameter one of their own."""
        for use in binding.uses:
            node = self._node(use)
            read = node.input[use[2]].partition(UNSHARED)[0]
            node.input[use[2]] = self._tensor(binding, read, array)

    def _tensor(self, binding: Binding, read: str, array: np.ndarray) -> str:
        value = binding.seen.value(array)
        key = (read, value.tobytes())
        if key in self._own:
            return self._own[key]
        number = 1
        while f"{read}{UNSHARED}{number}" in self._names:
            number += 1
        name = self._own[key] = f"{read}{UNSHARED}{number}"
        self._names.add(name)
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        tensor = self.proto.graph.initializer.add(name=name, data_type=kind, dims=value.shape)
        _fill(tensor, value)
        if self.proto.ir_version < 4:
            info = helper.make_tensor_value_info(name, kind, value.shape)
            self.proto.graph.input.append(info)
        return name

    def _node(self, use: Use) -> NodeProto:
        return self.nodes[use[0], use[1]]


def _fill(tensor: TensorProto, array: np.ndarray) -> None:
    """Replaces the numbers and keeps name, type, shape and documentation."""
    for field in ("float_data", "double_data", "int32_data"):
        tensor.ClearField(field)
    if array.dtype.kind == "f":
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    tensor.raw_data = array.tobytes()


def _value(module: nn.Module, path: str) -> np.ndarray:
    owner, _, leaf = path.rpartition(".")
    return getattr(module.get_submodule(owner), leaf).detach().cpu().numpy()
