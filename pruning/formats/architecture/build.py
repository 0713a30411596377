"""From a checked architecture to a module without numbers, priced before any are read."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.architecture import network_functions  # noqa: F401
from pruning.formats.architecture.arguments import DTYPES, Parameter, read
from pruning.formats.architecture.functions import FUNCTIONS
from pruning.formats.architecture.layers import LAYERS, LayerKind, stack_depth
from pruning.formats.architecture.module import ArchitectureModule, Group, Step, tensor_at
from pruning.formats.architecture.schema import Architecture, Constant, Input, Layer, invalid, shown
from pruning.formats.counting import Counted
from pruning.formats.limits import Limits

CONSTANTS = "constants"
_SYMBOLIC = 16
_FAILURES = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
             AssertionError)  # fmt: skip


@dataclass(frozen=True)
class Skeleton:
    """A module on the meta device.

    Attributes:
        module: Its parameters and buffers have shapes and no numbers.
        stored: Paths of the tensors that the file of weights has to hold.
        inline: Paths of constants whose numbers stand in architecture.json.
    """

    module: ArchitectureModule
    stored: list[str]
    inline: dict[str, Constant]


def build(architecture: Architecture, limits: Limits) -> Skeleton:
    """The network on the meta device.

    Raises:
        SecateurError: `operator_unsupported` for a kind or function that is not known,
            `model_invalid` for arguments, references or paths that do not fit, `model_too_large`.
    """
    steps = _steps(architecture)
    module = ArchitectureModule([i.name for i in architecture.inputs],
                                [o.node for o in architecture.outputs], steps)  # fmt: skip
    budget = _Budget(limits)
    for path, layer in architecture.layers.items():
        _place(module, path, _layer(path, layer, budget))
    for path, stored in architecture.parameters.items():
        budget.take(math.prod(stored.shape), path)
        value = torch.empty(stored.shape, dtype=DTYPES[stored.dtype], device="meta")
        if not stored.buffer and not value.is_floating_point():
            raise invalid(f"{shown(path)}: a parameter of type {stored.dtype}", path)
        _place(module, path, value if stored.buffer else nn.Parameter(value))
    inline = {}
    for name, constant in architecture.constants.items():
        budget.take(math.prod(constant.shape), name)
        path = f"{CONSTANTS}.{name}"
        if constant.values is not None:
            if len(constant.values) != math.prod(constant.shape):
                raise invalid(f"constants.{shown(name)}: the numbers do not fit the shape", path)
            inline[path] = constant
        value = torch.empty(constant.shape, dtype=DTYPES[constant.dtype], device="meta")
        _place(module, path, value)
    for step in steps:
        if step.op == "tensor":
            try:
                tensor_at(module, step.target)
            except (KeyError, AttributeError):
                raise invalid(
                    f"{shown(step.name)}: there is no tensor {shown(step.target)!r}", step.name
                ) from None
    names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    _check_stored(names, inline)
    return Skeleton(module.eval(), [n for n in names if n not in inline], inline)


def price(skeleton: Skeleton, inputs: list[Input], limits: Limits) -> None:
    """Runs the network without numbers, and refuses one that would take too much memory.

    Raises:
        SecateurError: `model_too_large`, or `model_invalid` where it can't run.
    """
    first = next((declared.shape[0] for declared in inputs if declared.shape), None)
    batch = first if isinstance(first, int) else 2
    try:
        samples = [_bare(declared, batch) for declared in inputs]
        counted = Counted(limits, batch)
        counted.bytes = sum(x.nbytes for x in samples)
        with torch.no_grad(), torch.device("meta"), counted:
            skeleton.module(*samples)
    except SecateurError:
        raise
    except _FAILURES as error:
        raise invalid(f"it can't run: {shown(str(error))}", "graph") from None


def _bare(declared: Input, batch: int) -> Tensor:
    sizes = [size if isinstance(size, int) else _SYMBOLIC for size in declared.shape]
    if declared.shape and not isinstance(declared.shape[0], int):
        sizes[0] = batch
    return torch.empty(sizes, dtype=DTYPES[declared.dtype], device="meta")


class _Budget:
    """What layers may hold together."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._numbers, self._layers, self._tensors = limits, 0, 0, 0

    def take(self, numbers: int, where: str) -> None:
        """Counts parameters."""
        self._numbers += numbers
        if self._numbers > self._limits.parameters:
            raise SecateurError(
                "model_too_large",
                f"The layers hold more than {self._limits.parameters} numbers.",
                where=shown(where),
            )

    def enter(self, layers: int, where: str) -> None:
        """Counts layers inside layers."""
        self._layers += layers
        self._bound("layers", self._layers, self._limits.tensors, where)

    def hold(self, tensors: int, where: str) -> None:
        """Counts tensors, of which a file can't hold more either."""
        self._tensors += tensors
        self._bound("tensors", self._tensors, self._limits.stored_tensors, where)

    def _bound(self, what: str, count: int, limit: int, where: str) -> None:
        if count > limit:
            raise SecateurError(
                "model_too_large", f"There are more than {limit} {what}.", where=shown(where)
            )


def _kind(path: str, layer: Layer) -> LayerKind:
    kind = LAYERS.get(layer.kind)
    if kind is None:
        raise SecateurError(
            "operator_unsupported",
            f"The layer {shown(path)!r} is of kind {shown(layer.kind)!r}, which is not read.",
            where=shown(path),
            hint="Kinds read here: " + ", ".join(LAYERS) + ".",
        )
    return kind


def _layer(path: str, layer: Layer, budget: _Budget) -> nn.Module:
    kind = _kind(path, layer)
    args = read(kind.parameters, layer.args, shown(path), layer.kind)
    budget.enter(stack_depth(args), path)
    try:
        with torch.device("meta"):
            made = kind.make(**args)
    except _FAILURES as error:
        raise invalid(f"{shown(path)}: {layer.kind}: {shown(str(error))}", path) from None
    held = [*made.parameters(), *made.buffers()]
    budget.hold(len(held), path)
    budget.take(sum(tensor.numel() for tensor in held), path)
    return made


def _place(module: nn.Module, path: str, value: nn.Module | Tensor) -> None:
    *owners, leaf = path.split(".")
    at = module
    for part in owners:
        below = at._modules.get(part)
        if below is None:
            below = Group()
            _enter(at, part, below, path)
        if type(below) is not Group:
            raise invalid(f"{shown(path)!r} lies inside a layer", path)
        at = below
    _enter(at, leaf, value, path)


def _enter(owner: nn.Module, leaf: str, value: nn.Module | Tensor, path: str) -> None:
    try:
        if hasattr(owner, leaf):
            raise KeyError("it is taken")
        if isinstance(value, nn.Module):
            owner.add_module(leaf, value)
        elif isinstance(value, nn.Parameter):
            owner.register_parameter(leaf, value)
        else:
            owner.register_buffer(leaf, value)
    except KeyError as error:
        raise invalid(f"{shown(path)!r} is no possible name: {shown(str(error))}", path) from None


def _steps(architecture: Architecture) -> list[Step]:
    known = {i.name for i in architecture.inputs}
    if len(known) != len(architecture.inputs):
        raise invalid("two inputs have one name", "inputs")
    steps = []
    for node in architecture.graph:
        where = shown(node.name)
        if node.name in known:
            raise invalid(f"two nodes are called {where!r}", where)
        step = Step(node.name, "tensor", node.target)
        if node.op in ("layer", "function"):
            parameters = _called(architecture, node.op, node.target, where)
            args = read(parameters, node.args, where, shown(node.target))
            op: Any = node.op
            step = Step(node.name, op, node.target, parameters, tuple(args.items()))
        elif node.op == "constant":
            if node.target not in architecture.constants:
                raise invalid(f"{where}: there is no constant {shown(node.target)!r}", where)
            step = Step(node.name, "tensor", f"{CONSTANTS}.{node.target}")
        if node.op not in ("layer", "function") and node.args:
            raise invalid(f"{where}: a {node.op} takes no arguments", where)
        for name in step.reads():
            if name not in known:
                raise invalid(f"{where}: {shown(name)!r} is no node before this one", where)
        known.add(node.name)
        steps.append(step)
    for output in architecture.outputs:
        if output.node not in known:
            raise invalid(f"the output {shown(output.name)!r} is no node", "outputs")
    return steps


def _called(architecture: Architecture, op: str, target: str, where: str) -> tuple[Parameter, ...]:
    if op == "layer":
        layer = architecture.layers.get(target)
        if layer is None:
            raise invalid(f"{where}: there is no layer {shown(target)!r}", where)
        return _kind(target, layer).call
    function = FUNCTIONS.get(target)
    if function is None:
        raise SecateurError(
            "operator_unsupported",
            f"The function {shown(target)!r} is not read.",
            where=where,
            hint="docs/architecture-json.md lists those that are.",
        )
    return function.parameters


def _check_stored(names: list[str], inline: dict[str, Constant]) -> None:
    for path, constant in inline.items():
        if path not in names:
            raise invalid(f"{shown(path)!r} is taken", path)
        is_bool = constant.dtype == "bool"
        for value in constant.values or ():
            if not _fits(value, constant.dtype, is_bool):
                raise invalid(f"{shown(path)}: {shown(str(value))} is no {constant.dtype}", path)


def _fits(value: Any, dtype: str, is_bool: bool) -> bool:
    if is_bool or isinstance(value, bool):
        return is_bool and isinstance(value, bool)
    if isinstance(value, str):
        return "float" in dtype and value in ("inf", "-inf", "nan")
    if isinstance(value, float):
        return "float" in dtype
    if "float" in dtype:
        return abs(value) < 2**53
    info = torch.iinfo(DTYPES[dtype])
    return bool(info.min <= value <= info.max)
