"""Turns a graph's nodes into steps and layers; what the operators' builders work with."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from onnx import NodeProto
from torch import nn

from pruning.errors import SecateurError
from pruning.formats.onnx import naming
from pruning.formats.onnx.attributes import Attributes
from pruning.formats.onnx.binding import Binding, Layout, computing_dtype, to_parameter
from pruning.formats.onnx.graph import Constant, Graph, label
from pruning.formats.onnx.module import OnnxModule, Reference, Step
from pruning.formats.onnx.parse import opset, shown
from pruning.formats.onnx.shapes import infer_shapes


class Node:
    """One node as a builder sees it: padded inputs, outputs that are read, typed attributes."""

    def __init__(self, proto: NodeProto, uses: dict[str, int]) -> None:
        self.proto = proto
        self.operator = proto.op_type
        self.label = label(proto)
        self.inputs = [name or None for name in proto.input]
        self.outputs = list(proto.output)
        self.attributes = Attributes(proto, self.label)
        self._uses = uses

    def input(self, index: int) -> str | None:
        """The value's name, or None where the optional input is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def one_output(self) -> str:
        """The first output.

        Raises:
            SecateurError: `operator_attribute_unsupported` where another output is read.
        """
        if any(self._uses.get(name) for name in self.outputs[1:] if name):
            raise self.unsupported("more than its first output is used")
        return self.outputs[0]

    def unsupported(self, what: str, hint: str | None = None) -> SecateurError:
        """The error for a use of the operator that is not read."""
        return SecateurError(
            "operator_attribute_unsupported",
            f"{self.operator}: {what}, which is not read.",
            where=self.label,
            hint=hint,
        )

    def invalid(self, what: str) -> SecateurError:
        """The error for a node that makes no sense."""
        return SecateurError("model_invalid", f"{self.operator}: {what}.", where=self.label)


class Builder:
    """Collects steps, layers and the bindings between parameters and tensors of the file."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.opset = opset(graph.proto)
        self.module = OnnxModule([i.name for i in graph.inputs], graph.outputs)
        self.steps: list[Step] = []
        self.bindings: dict[str, Binding] = {}
        self.fused: set[str] = set()
        self._paths = naming.Paths(self.module)
        self._shared: dict[str, nn.Parameter | torch.Tensor] = {}
        self._as_values: set[str] = set()

    def constant(self, name: str | None) -> Constant | None:
        """The constant of that name, or None for a computed value."""
        return self.graph.constants.get(name) if name else None

    def call(
        self,
        node: Node,
        function: Callable[..., Any],
        inputs: list[str | None],
        outputs: list[str] | None = None,
    ) -> None:
        """Adds a step that computes `function` of the inputs."""
        names = tuple(outputs if outputs is not None else [node.one_output()])
        self._read(inputs)
        self.steps.append(Step(tuple(inputs), names, node.label, node.operator, function))

    def layer(self, node: Node, path: str, source: str, output: str) -> None:
        """Adds a step that calls the layer at `path` on one value."""
        self._read([source])
        self.steps.append(Step((source,), (output,), node.label, node.operator, layer=path))

    def place(self, layer: nn.Module, names: tuple[str, str | None, Node], fallback: str) -> str:
        """Registers a layer under a path that follows the names of its weight, bias and node."""
        weight, bias, node = names
        found = naming.candidates(weight, bias, node.proto.name)
        return self._paths.place(layer, found, fallback)

    def bind(
        self, node: Node, path: str, constant: Constant, layout: Layout, *, prunable: bool = False
    ) -> None:
        """Makes the tensor of the file the parameter (or buffer) at `path` of the module.

        A tensor bound before in the same layout becomes the same object in both places.

        Args:
            node: Whose input the tensor is.
            path: Dotted path of a parameter or buffer that exists on the meta device.
            constant: The tensor.
            layout: How the tensor is turned, relative to the file.
            prunable: Whether values must be finite.

        Raises:
            SecateurError: `weights_non_finite`, or `operator_attribute_unsupported` where the
                tensor is used elsewhere in another layout.
        """
        if constant.array.dtype.kind != "f":
            raise node.unsupported(f"a weight of type {constant.array.dtype.name}")
        value = to_parameter(constant.array, layout)
        if prunable and not np.isfinite(value).all():
            raise SecateurError(
                "weights_non_finite",
                f"The weight {shown(constant.source)!r} holds NaN or infinity.",
                where=shown(constant.source),
                hint="Repair the training run; a network with such weights can't be pruned.",
            )
        owner, _, leaf = path.rpartition(".")
        layer = self.module.get_submodule(owner)
        bound = self.bindings.get(constant.source)
        if bound is None:
            tensor = torch.from_numpy(value)
            shared: Any = tensor if leaf.startswith("running_") else nn.Parameter(tensor)
            self.bindings[constant.source] = Binding(path, constant.source, layout)
            self._shared[constant.source] = shared
        elif bound.layout != layout:
            raise node.unsupported(
                f"the tensor {shown(constant.source)!r} is also used by "
                f"{bound.path.rpartition('.')[0]} in another layout",
                hint="Give each of the two layers its own copy of the tensor.",
            )
        shared = self._shared[constant.source]
        if leaf.startswith("running_"):
            layer._buffers[leaf] = shared.detach()
        elif isinstance(shared, nn.Parameter):
            layer._parameters[leaf] = shared
        else:
            raise node.unsupported(
                f"the tensor {shown(constant.source)!r} is both a statistic and a weight"
            )

    def refuse_computed(self, node: Node, name: str | None, what: str) -> None:
        """Raises `operator_attribute_unsupported` where a weight is computed from constants."""
        if name in self.graph.derived:
            raise node.unsupported(
                f"its {what} is computed by {self.graph.derived[name]}",
                hint="Fold constants on export, so that the weight is stored as one tensor.",
            )

    def rank(self, name: str) -> int | None:
        """The number of axes of a value, where ONNX's shape inference knows it."""
        return self._ranks.get(name)

    def finish(self) -> OnnxModule:
        """Attaches the constants that steps read and gives the module out, in eval mode."""
        module = self.module
        self._read(list(self.graph.outputs))
        for index, name in enumerate(sorted(self._as_values)):
            constant = self.graph.constants[name]
            bound = self.bindings.get(constant.source)
            if bound is not None and not bound.path.rpartition(".")[2].startswith("running_"):
                module.references[name] = _reference(bound, constant)
            elif constant.array.dtype.kind == "f" and constant.array.size > 1:
                dtype = computing_dtype(constant.array.dtype)
                value = np.array(constant.value, dtype=dtype, order="C")
                path = f"constant_{index}"
                while hasattr(module, path):
                    path += "_"
                module.register_buffer(path, torch.from_numpy(value), persistent=False)
                module.constant_buffers[name] = path
            else:
                dtype = computing_dtype(constant.array.dtype)
                module.host_constants[name] = np.array(constant.value, dtype=dtype, order="C")
        module.finish(self.steps)
        return module.eval()

    def _read(self, names: list[str | None]) -> None:
        self._as_values.update(n for n in names if n in self.graph.constants)

    @cached_property
    def _ranks(self) -> dict[str, int]:
        return {name: len(shape) for name, (shape, _) in infer_shapes(self.graph.proto).items()}


def _reference(bound: Binding, constant: Constant) -> Reference:
    if bound.layout.scale != 1.0:
        raise SecateurError(
            "operator_attribute_unsupported",
            f"The tensor {shown(constant.source)!r} is a scaled weight and also used unscaled.",
            where=shown(constant.source),
            hint="Give each use its own copy of the tensor.",
        )
    turned = tuple(constant.array.shape[axis] for axis in bound.layout.permutation)
    back = np.argsort(bound.layout.permutation)
    permutation = tuple(int(back[axis]) for axis in constant.permutation)
    return Reference(bound.path, turned, permutation)
