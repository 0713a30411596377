"""A module's parameters back into the user's own file; nothing else of it changes."""

import os
from pathlib import Path

import numpy as np
from onnx import AttributeProto, ModelProto, TensorProto, numpy_helper
from torch import nn

from pruning.errors import SecateurError
from pruning.formats.onnx.binding import Binding, to_tensor
from pruning.formats.onnx.graph import constant_tensor
from pruning.formats.onnx.parse import shown
from pruning.formats.onnx.read import ImportedModel


def write_onnx(imported: ImportedModel, path: Path | str, module: nn.Module | None = None) -> None:
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


def onnx_bytes(imported: ImportedModel, module: nn.Module | None = None) -> bytes:
    """The bytes that `write_onnx` writes; the same values give the same bytes.

    Raises:
        SecateurError: `weights_non_finite` where a new value is not finite in the file's type.
    """
    module = module or imported.module
    proto = ModelProto()
    proto.CopyFrom(imported.proto)
    holders = _Holders(proto)
    for binding in imported.bindings:
        _write(holders, binding, _value(module, binding.path))
    return proto.SerializeToString(deterministic=True)


class _Holders:
    """Finds where the file keeps a tensor: an initialiser or a Constant node's attribute."""

    def __init__(self, proto: ModelProto) -> None:
        self.initializers = {t.name: t for t in proto.graph.initializer}
        self.constants = {
            n.output[0]: n for n in proto.graph.node if n.op_type == "Constant" and n.output
        }

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


def _write(holders: _Holders, binding: Binding, value: np.ndarray) -> None:
    original = numpy_helper.to_array(holders.tensor(binding.source))
    try:
        changed = to_tensor(value, original, binding.layout)
    except SecateurError as error:
        raise SecateurError(error.code, error.message, where=shown(binding.source)) from None
    if changed is not None:
        holders.replace(binding.source, changed)


def _fill(tensor: TensorProto, array: np.ndarray) -> None:
    """Replaces the numbers and keeps name, type, shape and documentation."""
    for field in ("float_data", "double_data", "int32_data"):
        tensor.ClearField(field)
    tensor.raw_data = array.astype(array.dtype.newbyteorder("<")).tobytes()


def _value(module: nn.Module, path: str) -> np.ndarray:
    owner, _, leaf = path.rpartition(".")
    return getattr(module.get_submodule(owner), leaf).detach().cpu().numpy()
