"""Turns a graph's nodes into steps and layers; what the operators' builders work with."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from pruning.errors import SecateurError
from pruning.formats.onnx import naming
from pruning.formats.onnx.binding import (
    Binding,
    Layout,
    Route,
    Use,
    to_parameter,
)
from pruning.formats.onnx.graph import Constant, Graph
from pruning.formats.onnx.module import OnnxModule, Reference, Step, layer_at
from pruning.formats.onnx.node import Node
from pruning.formats.onnx.parse import opset, shown
from pruning.formats.onnx.shapes import OPEN, SMALL, closed

__all__ = ["Builder", "Node"]


class Builder:
    """Collects steps, layers and the bindings between parameters and tensors of the file."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.opset = opset(graph.proto)
        self.module = OnnxModule([i.name for i in graph.inputs], graph.outputs)
        self.steps: list[Step] = []
        self.bindings: list[Binding] = []
        self.fused: set[str] = set()
        self._paths = naming.Paths(self.module)
        self._held: dict[tuple[object, ...], tuple[Binding, Any]] = {}
        self._matrices: dict[tuple[object, ...], Binding] = {}
        self._taken: dict[tuple[str, str], int] = {}
        self._as_values: set[str] = set()
        self._finite: set[str] = set()

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

    def layer(
        self,
        node: Node,
        path: str,
        source: str | Sequence[str | None],
        output: str | Sequence[str],
    ) -> None:
        """Adds a step that calls the layer at `path`, on one value or several."""
        inputs = [source] if isinstance(source, str) else list(source)
        outputs = (output,) if isinstance(output, str) else tuple(output)
        self._read(inputs)
        self.steps.append(Step(tuple(inputs), outputs, node.label, node.operator, layer=path))

    def place(self, layer: nn.Module, names: tuple[str, str | None, Node], fallback: str) -> str:
        """Registers a layer under a path that follows the names of its weight, bias and node."""
        weight, bias, node = names
        found = naming.candidates(weight, bias, node.proto.name)
        return self._paths.place(layer, found, fallback)

    def bind(
        self,
        node: Node,
        path: str,
        constant: Constant,
        layout: Layout,
        *,
        prunable: bool = False,
        tied: bool = False,
    ) -> None:
        """Makes the tensor of the file the parameter (or buffer) at `path` of the module.

        A prunable tensor bound before in the same layout becomes the same object in both places:
        the graph ties them. Other tensors that several nodes read only hold equal values, as
        exporters store equal tensors once; each gets a parameter of its own.

        Args:
            node: Whose input the tensor is.
            path: Dotted path of a parameter or buffer that exists on the meta device.
            constant: The tensor.
            layout: How the tensor is turned, relative to the value that the node reads.
            prunable: Whether values must be finite, and a second use is a tie.
            tied: Whether a second use is a tie.

        What was computed from constants becomes a buffer, which nothing trains.

        Raises:
            SecateurError: `weights_non_finite`, or `operator_attribute_unsupported` where the
                tensor is used elsewhere in another layout.
        """
        if not constant.is_real:
            raise node.unsupported(f"a weight of type {constant.dtype.name}")
        owner, _, leaf = path.rpartition(".")
        layer = layer_at(self.module, owner)
        route = constant.route.laid_out(layout)
        source = constant.source
        if not source:
            _attach(layer, leaf, torch.from_numpy(to_parameter(constant.original, route)))
            return
        statistic = leaf.startswith("running_")
        use = self._use(node, constant.name)
        key: tuple[object, ...] = (source, route, statistic)
        tied = tied or prunable
        if not tied and use is not None:
            key = (*key, use)
        if prunable:
            self._check_finite(constant)
        if key in self._held:
            binding, shared = self._held[key]
            if use is not None:
                binding.uses.append(use)
            _attach(layer, leaf, shared)
            return
        value = to_parameter(constant.original, route)
        if tied and not layout.of:
            first = self._bound(constant)
            if first is not None and first.route != route:
                raise self.turned(node, constant, first)
        binding = Binding(path, source, route, [use] if use else [], constant.route)
        if tied and not layout.of:
            self._matrices[source, constant.route.part] = binding
        tensor = torch.from_numpy(value)
        shared = tensor if statistic else nn.Parameter(tensor)
        self._held[key] = (binding, shared)
        self.bindings.append(binding)
        _attach(layer, leaf, shared)

    def _check_finite(self, constant: Constant) -> None:
        source = constant.source
        if source in self._finite:
            return
        values = constant.original
        values = values if values.dtype.kind == "f" else values.astype(np.float32)
        # A sum is not finite where one of its terms is not; that of large ones may not be either.
        with np.errstate(over="ignore", invalid="ignore"):
            total = values.sum()
        if not np.isfinite(total) and not np.isfinite(values).all():
            raise SecateurError(
                "weights_non_finite",
                f"The weight {shown(source)!r} holds NaN or infinity.",
                where=shown(source),
                hint="Repair the training run; a network with such weights can't be pruned.",
            )
        self._finite.add(source)

    def tied_otherwise(self, constant: Constant, layout: Layout) -> bool:
        """Whether the tensor is a layer's weight already, in another layout.

        It can't be a second layer's parameter then; as a value it follows the first.
        """
        bound = self._bound(constant)
        return bound is not None and bound.route != constant.route.laid_out(layout)

    def _bound(self, constant: Constant) -> Binding | None:
        """The layer's weight that the tensor, or this part of it, is already."""
        return self._matrices.get((constant.source, constant.route.part))

    @staticmethod
    def turned(node: Node, constant: Constant, bound: Binding) -> SecateurError:
        """The error for a tensor that two layers hold in two layouts."""
        return node.unsupported(
            f"the tensor {shown(constant.source)!r} is also used by "
            f"{bound.path.rpartition('.')[0]} in another layout",
            hint="Give each of the two layers its own copy of the tensor.",
        )

    def _use(self, node: Node, name: str) -> Use | None:
        """The input by which a node reads a value; the next one where it reads it twice."""
        places = [i for i, given in enumerate(node.proto.input) if given == name]
        if not places:
            return None
        key = (node.outputs[0] if node.outputs else "", name)
        number = self._taken.get(key, 0)
        self._taken[key] = number + 1
        # A node that takes several parameters out of one input reads that input for each.
        return self.graph.use(node.proto, places[min(number, len(places) - 1)])

    def refuse_computed(self, node: Node, name: str | None, what: str) -> None:
        """Raises `operator_attribute_unsupported` where a weight is computed from constants."""
        if name in self.graph.derived:
            raise node.unsupported(
                f"its {what} is computed by {self.graph.derived[name]}, so that a new value can't "
                "be written back",
                hint="Fold constants on export, so that the weight is stored as one tensor.",
            )

    def rank(self, name: str) -> int | None:
        """The number of axes of a value, where ONNX's shape inference knows it."""
        rank = self._ranks.get(name)
        return self._more_ranks.get(name) if rank is None else rank

    def finish(self) -> OnnxModule:
        """Attaches the constants that steps read and gives the module out, in eval mode."""
        module = self.module
        self._read(list(self.graph.outputs))
        for index, name in enumerate(sorted(self._as_values)):
            constant = self.graph.constants[name]
            bound = self._bound(constant) if constant.source else None
            if bound is not None:
                module.references[name] = self._reference(bound, constant)
                continue
            if constant.source:
                self.graph.frozen.add(constant.source)
            value = constant.host()
            if constant.is_real and value.size > 1:
                path = f"constant_{index}"
                while hasattr(module, path):
                    path += "_"
                tensor = torch.from_numpy(np.array(value))
                module.register_buffer(path, tensor, persistent=False)
                module.constant_buffers[name] = path
            else:
                module.host_constants[name] = value
        self._check_writable()
        module.finish(self.steps)
        return module.eval()

    def _check_writable(self) -> None:
        """A tensor that several things read needs inputs to rename when one of them changes."""
        counts: dict[str, int] = {}
        for binding in self.bindings:
            counts[binding.source] = counts.get(binding.source, 0) + 1
        for binding in self.bindings:
            shared = counts[binding.source] > 1 or binding.source in self.graph.frozen
            if shared and not binding.uses:
                raise SecateurError(
                    "operator_attribute_unsupported",
                    f"The tensor {shown(binding.source)!r} is used inside and outside of a loop.",
                    where=shown(binding.source),
                    hint="Export without loops, for example by tracing.",
                )

    def _read(self, names: Sequence[str | None]) -> None:
        self._as_values.update(n for n in names if n in self.graph.constants)

    def _reference(self, bound: Binding, constant: Constant) -> Reference:
        if bound.source in self.graph.frozen:
            raise SecateurError(
                "operator_attribute_unsupported",
                f"The weight {shown(bound.source)!r} is also used in a computation of constants.",
                where=shown(bound.source),
                hint="Fold constants on export.",
            )
        there = Route(bound.route.shapes[-1])
        back = there.then(*bound.route.of_part.back(), *constant.route.of_part.moves)
        return Reference(bound.path, back, constant.route.scale / bound.route.scale)

    @cached_property
    def _ranks(self) -> dict[str, int]:
        # The sizes that the measuring of the graph begins with too.
        sizes = closed(self.graph.inputs, *OPEN[0])
        return {name: len(s) for name, (s, _) in self.graph.both_shapes(sizes)[0].items()}

    @cached_property
    def _more_ranks(self) -> dict[str, int]:
        sizes = closed(self.graph.inputs, *OPEN[0])
        return {name: len(s) for name, (s, _) in self.graph.shapes(SMALL, sizes).items()}


def _attach(layer: nn.Module, leaf: str, shared: Any) -> None:
    if isinstance(shared, nn.Parameter):
        layer._parameters[leaf] = shared
        return
    if leaf in layer._parameters:
        del layer._parameters[leaf]
        layer._non_persistent_buffers_set.add(leaf)
    layer._buffers[leaf] = shared
