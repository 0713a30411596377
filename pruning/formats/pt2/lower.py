"""A loaded program as a module: stored weights in torch's own layers at their own paths.

Dropout and batch normalisation become layers that follow `train()` and `eval()`, whatever mode the
program was exported in. Operators that change a tensor in place are replaced where nothing else
sees the change.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.fx import Node

from pruning.errors import SecateurError
from pruning.formats.pt2 import native
from pruning.formats.pt2.layers import Calls, Layer, bound
from pruning.formats.pt2.module import HALVES, Here, Pt2Module, Ref, State, Step
from pruning.formats.pt2.payloads import Stored
from pruning.formats.pt2.placing import Placing

_COUNTER = "num_batches_tracked"
_RENAMED: dict[str, Callable[..., Any]] = {
    "aten.add.Tensor": torch.add,
    "aten.view.default": torch.reshape,
    "aten._unsafe_view.default": torch.reshape,
}
"""Calls as modules write them: sums are where the layer-wise walk finds residual streams, and a
view of strides that only the exporter's machine had is a copy."""

_CHECKED: dict[str, Callable[..., Any]] = {
    "aten.native_group_norm.default": native.group_norm,
    "aten.native_batch_norm.default": native.batch_norm,
    "aten._native_batch_norm_legit.default": native.batch_norm,
    "aten._native_batch_norm_legit.no_stats": native.batch_norm_without_statistics,
    "aten._native_batch_norm_legit_functional.default": native.batch_norm,
    "aten._native_batch_norm_legit_no_training.default": native.trained_batch_norm,
    "aten._batch_norm_with_update.default": native.updated_batch_norm,
    "aten._batch_norm_with_update_functional.default": native.updated_batch_norm,
    "aten._batch_norm_no_update.default": native.trained_batch_norm,
}
"""Operators that trust the sizes they are given, by those that check them."""


@dataclass
class Lowered:
    """The module and how it hangs together with the file.

    Attributes:
        module: In eval mode.
        paths: Name of a stored tensor to its paths in the module.
        transposed: Names of tensors that the module holds with their two axes exchanged.
    """

    module: Pt2Module
    paths: dict[str, list[str]]
    transposed: set[str]


def lowered(program: ExportedProgram, stored: Mapping[str, Stored]) -> Lowered:
    """The module of a loaded program.

    Args:
        program: From an archive that was checked.
        stored: The file's tensors, for which of them are one.

    Raises:
        SecateurError: `model_invalid`, `operator_attribute_unsupported` for a graph that changes
            its buffers or takes no tensor.
    """
    return _Lowering(program, stored).run()


class _Lowering:
    def __init__(self, program: ExportedProgram, stored: Mapping[str, Stored]) -> None:
        self.program, self.stored = program, stored
        self.values: dict[str, Tensor] = {
            **{n: t for n, t in program.constants.items() if isinstance(t, Tensor)},
            **program.state_dict,
        }
        self.placing = Placing(self.values, stored)
        self.known: dict[Node, Any] = {}
        self.owner: dict[Node, str] = {}
        self.roots: dict[Node, Node] = {}
        self.seen: dict[Node, set[Node]] = {}
        self.steps: list[Step] = []
        self.kinds: dict[str, nn.Module] = {}
        self.copied: set[str] = set()
        self.inputs: list[str] = []
        self.live: set[Node] = set()
        self.calls = Calls(self._is_stored, self._is_parameter, self._is_sole)

    def run(self) -> Lowered:
        nodes = list(self.program.graph.nodes)
        placeholders = [n for n in nodes if n.op == "placeholder"]
        specs = self.program.graph_signature.input_specs
        for node, spec in zip(placeholders, specs, strict=True):
            self._input(node, spec)
        if not self.inputs:
            raise SecateurError("model_invalid", "The graph takes no tensor.", where="inputs")
        outputs, mutated = self._outputs(nodes[-1])
        self._find_live(nodes, outputs)
        for node in nodes:
            if node.op == "call_function":
                self._call(node)
            elif node.op not in ("placeholder", "output"):
                raise _unsupported(f"nodes of the kind {node.op}", node.name)
        self._check_mutated(mutated)
        module = Pt2Module(self.inputs)
        paths = self.placing.build(module)
        firsts = {name: found[0] for name, found in paths.items()}
        steps = [_resolved(step, firsts, self.placing.moved) for step in self.steps]
        results = [self._argument(o) for o in outputs]
        kept = [_placed(r, firsts) for r in results if isinstance(r, Ref | State)]
        if not kept:
            raise SecateurError("model_invalid", "The graph puts out no tensor.", where="outputs")
        module.finish(steps, kept)
        module.copied = frozenset(self.copied)
        module.eval()
        return Lowered(module, paths, self.placing.transposed)

    def _input(self, node: Node, spec: Any) -> None:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            self.owner[node] = spec.target
            self.known[node] = State(spec.target)
        elif spec.kind != InputKind.USER_INPUT:
            raise _unsupported(f"inputs of the kind {spec.kind.name}", node.name)
        elif isinstance(spec.arg, TensorArgument):
            self.inputs.append(node.name)
            self.known[node] = Ref(node.name)
        elif isinstance(spec.arg, ConstantArgument):
            self.known[node] = spec.arg.value
        else:
            raise _unsupported("inputs that are sizes", node.name)
        self.roots[node] = node
        self.seen[node] = {node}

    def _outputs(self, node: Node) -> tuple[list[Any], list[str]]:
        specs = self.program.graph_signature.output_specs
        results: list[Any] = []
        mutated: list[str] = []
        for value, spec in zip(node.args[0], specs, strict=True):  # type: ignore[arg-type]
            if spec.kind == OutputKind.USER_OUTPUT:
                results.append(value)
            else:
                mutated.append(str(spec.target))
        return results, mutated

    def _find_live(self, nodes: list[Node], outputs: list[Any]) -> None:
        self.live = {o for o in outputs if isinstance(o, Node)}
        for node in reversed(nodes):
            if node in self.live or _writes(node.target):
                self.live.update(node.all_input_nodes)

    def _check_mutated(self, names: list[str]) -> None:
        """Buffers that the graph gives new values for are those of batch normalisation."""
        for name in names:
            if name not in self.placing.statistics and not name.endswith(_COUNTER):
                raise _unsupported(f"changes of the buffer {name}", name)

    def _is_stored(self, node: Any) -> bool:
        return isinstance(node, Node) and node in self.owner

    def _is_parameter(self, node: Any) -> bool:
        if not self._is_stored(node):
            return False
        name = self.owner[node]
        return self.stored[name].parameter and self.values[name].is_floating_point()

    def _is_sole(self, node: Node) -> bool:
        return len(node.users) == 1 and len(self.placing.aliases(self.owner[node])) == 1

    def _call(self, node: Node) -> None:
        if node.target is operator.getitem:
            self._item(node)
            return
        if not isinstance(node.target, torch._ops.OpOverload):
            self._alias(node, None)
            self._step(node, node.target)  # type: ignore[arg-type]
            return
        if self._is_count(node):
            return
        layer = self.calls.recognise(node) if node in self.live else None
        if (
            layer is not None
            and not _writes(node.target)
            and (not layer.first or self._only_first(node))
        ):
            path = self.placing.place(layer, {k: self.owner[n] for k, n in layer.state.items()},
                                      node.name)  # fmt: skip
            if path is not None:
                self._layer(node, layer, path)
                return
        self._operator(node)

    def _only_first(self, node: Node) -> bool:
        return all(user.args[1] == 0 or user not in self.live for user in node.users)

    def _is_count(self, node: Node) -> bool:
        """Whether a node counts batches, which layers do by themselves."""
        first = node.args[0] if node.args else None
        named = isinstance(first, Node) and self.owner.get(first, "").endswith(_COUNTER)
        name = node.target._schema.name  # type: ignore[union-attr]
        return named and name in ("aten::add_", "aten::add") and node not in self.live

    def _layer(self, node: Node, layer: Layer, path: str) -> None:
        self._alias(node, None)
        args, kwargs = self._argument(layer.args), self._argument(layer.kwargs)
        self.steps.append(Step(node.name, _label(node), args, kwargs, layer=path))
        self.known[node] = _First(node.name) if layer.first else Ref(node.name)
        if layer.flat:
            flat = f"{node.name}.flat"
            self.steps.append(Step(flat, _label(node), (Ref(node.name),), {}, _flat))
            self.known[node] = Ref(flat)

    def _item(self, node: Node) -> None:
        whole, index = node.args
        source = self.known.get(whole)  # type: ignore[arg-type]
        self._alias(node, whole)  # type: ignore[arg-type]
        if isinstance(source, _First):
            self.known[node] = Ref(source.name)
            return
        self.steps.append(Step(node.name, "getitem", (source, index), {}, operator.getitem))
        self.known[node] = Ref(node.name)

    def _operator(self, node: Node) -> None:
        schema = node.target._schema  # type: ignore[union-attr]
        if "dot_product" in schema.name:
            raise _unsupported("attention whose dropout is no number from 0 to 1", node.name)
        base = node.args[0] if node.args else None
        writes = _writes(node.target)
        shares = [a for a in schema.arguments if a.alias_info is not None]
        if not writes or not isinstance(base, Node):
            self._alias(node, base if shares and isinstance(base, Node) else None)
            self._step(node, node.target)  # type: ignore[arg-type]
            return
        root = self.roots[base]
        plain = getattr(torch.ops.aten, schema.name.removeprefix("aten::").rstrip("_"), None)
        kind = schema.overload_name or "default"
        alone = base is root and self.seen[root] == {base} and base not in self.owner
        dropout = self.calls.recognise(node) if schema.name == "aten::dropout_" else None
        if dropout is not None and not alone:
            raise _unsupported("dropout of a part of a tensor, in place", node.name)
        if alone and plain is not None and kind in plain.overloads():
            if dropout is not None:
                self._layer(node, dropout, str(self.placing.place(dropout, {}, node.name)))
            else:
                self._alias(node, None)
                self._step(node, getattr(plain, kind))
            self.known[base] = self.known[node]
            # What follows may write to either name; both are the new tensor.
            self.roots[base] = node
            return
        if root in self.owner:
            raise _unsupported(f"changes of the stored tensor {self.owner[root]}", node.name)
        if root.op == "placeholder":
            self.copied.add(root.name)
        self._alias(node, base)
        self._step(node, node.target)  # type: ignore[arg-type]

    def _alias(self, node: Node, base: Node | None) -> None:
        """Notes whose memory a result shares; None for memory of its own."""
        root = node if base is None else self.roots.get(base, node)
        self.roots[node] = root
        self.seen.setdefault(root, {root}).add(node)

    def _step(self, node: Node, function: Callable[..., Any]) -> None:
        args, kwargs = self._argument(tuple(node.args)), self._argument(dict(node.kwargs))
        kwargs.pop("pin_memory", None)
        if str(function) in _CHECKED:
            args, kwargs = self._argument(tuple(bound(node).values())), {}
            function = _CHECKED[str(function)]
        elif isinstance(function, torch._ops.OpOverload):
            function = _RENAMED.get(str(function), function) if not kwargs else function
        writes = isinstance(function, torch._ops.OpOverload) and _writes(function)
        self.steps.append(Step(node.name, _label(node), args, kwargs, function, writes=writes))
        self.known[node] = Ref(node.name)

    def _argument(self, part: Any) -> Any:
        if isinstance(part, Node):
            value = self.known.get(part)
            if isinstance(value, _First) or (value is None and part.op != "placeholder"):
                raise _unsupported("a result that was taken to be unused", part.name)
            return value
        if isinstance(part, torch.device):
            return Here()
        if isinstance(part, torch.dtype):
            return torch.float32 if part in HALVES else part
        if isinstance(part, list | tuple):
            return tuple(map(self._argument, part)) if isinstance(part, tuple) else [
                self._argument(inner) for inner in part
            ]  # fmt: skip
        if isinstance(part, dict):
            return {key: self._argument(inner) for key, inner in part.items()}
        return part


@dataclass(frozen=True)
class _First:
    """The first of an operator's results, all that its layer gives."""

    name: str


def _flat(result: tuple[Tensor, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    return result[0], *result[1]


def _writes(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.name.endswith("_")


def _label(node: Node) -> str:
    return str(node.target).removeprefix("<built-in function ").rstrip(">")


def _resolved(step: Step, paths: Mapping[str, str], moved: Mapping[str, str]) -> Step:
    args, kwargs = _placed(step.args, paths), _placed(step.kwargs, paths)
    layer = None if step.layer is None else moved[step.layer]
    return replace(step, args=args, kwargs=kwargs, layer=layer)


def _placed(part: Any, paths: Mapping[str, str]) -> Any:
    """The same with stored tensors by their paths."""
    if isinstance(part, State):
        return State(paths[part.path])
    if isinstance(part, list | tuple):
        return type(part)(_placed(inner, paths) for inner in part)
    if isinstance(part, dict):
        return {key: _placed(inner, paths) for key, inner in part.items()}
    return part


def _unsupported(what: str, where: str) -> SecateurError:
    return SecateurError(
        "operator_attribute_unsupported",
        f"The graph has {what}, which is not read.",
        where=where,
        hint="Export the network in eval mode, with tensors as its only inputs.",
    )
