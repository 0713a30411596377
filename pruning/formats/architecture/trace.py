"""From a live module to its declared graph: its forward is run once, and every call written down.

The module runs on real tensors. A torch function mode sees each call, layers of known kinds are
seen as a whole, and sizes are integers that remember where they come from. So control flow that
depends on shapes is followed as it went, and what depends on data is refused.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruning.errors import SecateurError
from pruning.formats.architecture import network_functions  # noqa: F401
from pruning.formats.architecture.calls import ADAPTERS, PASSIVE, READ_OUT, bound
from pruning.formats.architecture.functions import CALLABLES
from pruning.formats.architecture.layers import LayerKind, kind_of
from pruning.formats.architecture.schema import INLINE, Constant, Layer, Node
from pruning.formats.architecture.sizes import Size


class Tracer(TorchFunctionMode):
    """Writes down the calls of a module's forward.

    Args:
        module: A copy in eval mode; its forwards are replaced while it is traced.

    Attributes:
        nodes: What was called, in order.
        layers: Layers of known kinds by path, called or not.
        constants: Numbers that are neither inputs nor parameters.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.layers: dict[str, Layer] = {}
        self.constants: dict[str, Tensor] = {}
        self._module = module
        self._names: dict[int, str] = {}
        self._alive: list[Tensor] = []
        self._from_data: set[str] = set()
        self._paused = False
        self._path: list[str] = []
        state = set(module.state_dict())
        self._stored = {
            id(tensor): name
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
            if name in state
        }
        self._watch()

    def run(self, names: Sequence[str], inputs: Sequence[Tensor]) -> Any:
        """Traces the forward; returns its result.

        Raises:
            SecateurError: `operator_unsupported` for what can't be declared, with its place.
        """
        for name, value in zip(names, inputs, strict=True):
            self._names[id(value)] = name
            self._from_data.add(name)
            self._alive.append(value)
        with torch.no_grad(), self:
            return self._module(*inputs)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            return self._attribute(func, args[0])
        if name in READ_OUT:
            if any(self._reads_data(a) for a in (*args, *kwargs.values())):
                raise self.refuse(f"reads a number out of a tensor ({name})",
                                  "What is computed next must not depend on the data; use "
                                  "torch.where, masks or sizes instead.")  # fmt: skip
            return func(*args, **kwargs)
        if name in PASSIVE:
            return func(*args, **kwargs)
        if name in ADAPTERS:
            return ADAPTERS[name](self, func, args, kwargs)
        known = CALLABLES.get(func)
        if known is None:
            raise self.unknown(name)
        target, order = known
        return self.call(func, args, kwargs, target, bound(self, name, order, target, args, kwargs))

    def call(self, func: Any, args: Any, kwargs: Any, target: str, given: dict[str, Any]) -> Any:
        """Runs a torch call and writes it down as the function `target` of `given`."""
        declared = {name: self.encoded(value) for name, value in given.items()}
        return self.result(func(*args, **kwargs), "function", target, declared)

    def node(self, op: Any, target: str, args: dict[str, Any]) -> str:
        """Writes down a node of encoded arguments; returns its name."""
        stem = target.rpartition(".")[2] if op == "function" else target
        name = f"{stem}:{len(self.nodes)}"
        self.nodes.append(Node(name=name, op=op, target=target, args=args))
        if any(n in self._from_data for n in _nodes_of(args)):
            self._from_data.add(name)
        return name

    def result(self, value: Any, op: str, target: str, args: dict[str, Any]) -> Any:
        """Writes down a node and remembers its result by it."""
        self._remember(value, self.node(op, target, args))
        return value

    def size(self, value: int, target: str, args: dict[str, Any]) -> Size:
        """Writes down a node that gives a size."""
        declared = {name: self.encoded(v) for name, v in args.items()}
        return Size(value, self.node("function", target, declared), self)

    def shape(self, tensor: Tensor) -> tuple[Size, ...]:
        """A tensor's sizes as sizes that remember it."""
        with self._silent():
            sizes = [int(s) for s in tensor.shape]
        return tuple(
            self.size(size, "shape", {"input": tensor, "dim": dim})
            for dim, size in enumerate(sizes)
        )

    def encoded(self, value: Any) -> Any:
        """An argument as the file writes it."""
        if isinstance(value, Tensor):
            return {"node": self.name_of(value)}
        if isinstance(value, Size):
            return {"node": value.node}
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return {"float": str(value)} if value in (float("inf"), -float("inf")) else value
        if isinstance(value, torch.dtype):
            return str(value).removeprefix("torch.")
        if isinstance(value, slice):
            return {"slice": [self.encoded(v) for v in (value.start, value.stop, value.step)]}
        if value is ...:
            return {"ellipsis": True}
        if isinstance(value, list | tuple):
            return [self.encoded(part) for part in value]
        raise self.refuse(f"passes a {type(value).__name__} to a function of torch")

    def name_of(self, tensor: Tensor) -> str:
        """The node whose value a tensor is; parameters and constants become one here."""
        name = self._names.get(id(tensor))
        if name is not None:
            return name
        path = self._stored.get(id(tensor))
        if path is not None:
            name = self.node("parameter", path, {})
        else:
            key = f"c{len(self.constants)}"
            # What is changed in place later must not change what was seen now.
            with self._silent():
                self.constants[key] = tensor.detach().clone()
            name = self.node("constant", key, {})
        self._names[id(tensor)] = name
        self._alive.append(tensor)
        return name

    def layer(self, kind: str, args: dict[str, Any], stem: str) -> str:
        """Adds a layer that the module calls as a function; returns its path."""
        number = 0
        while f"{stem}_{number}" in self.layers or hasattr(self._module, f"{stem}_{number}"):
            number += 1
        self.layers[f"{stem}_{number}"] = Layer(kind=kind, args=args)
        return f"{stem}_{number}"

    def refuse(self, what: str, hint: str | None = None) -> SecateurError:
        """The error for a call that can't be declared, with the module and the line it is in."""
        path = self._path[-1] if self._path else ""
        return SecateurError(
            "operator_unsupported",
            f"The module {path or 'itself'} {what}, at {_line()}.",
            where=path or "module",
            hint=hint
            or "Write this part with the functions of docs/architecture-json.md, or "
            "export the model to ONNX: torch.onnx.export(model, inputs, 'model.onnx').",
        )

    def unknown(self, name: str) -> SecateurError:
        """The error for a torch function without a counterpart."""
        return self.refuse(f"calls {name}, for which architecture.json has no function")

    def _attribute(self, func: Any, tensor: Tensor) -> Any:
        name = getattr(func.__self__, "__name__", "")
        if name == "shape":
            return self.shape(tensor)
        value = func(tensor)
        if not isinstance(value, Tensor) or name == "grad":
            return value
        if name in ("T", "mT") and value.dim() >= 2 and (name == "mT" or value.dim() == 2):
            return self.result(value, "function", "transpose",
                               {"input": self.encoded(tensor), "dim0": -2, "dim1": -1})  # fmt: skip
        if name == "data":
            return self.result(value, "function", "identity", {"input": self.encoded(tensor)})
        raise self.unknown(f"Tensor.{name}")

    def _remember(self, value: Any, name: str) -> None:
        if isinstance(value, Tensor):
            self._names[id(value)] = name
            self._alive.append(value)
        elif isinstance(value, tuple | list):
            for index, part in enumerate(value):
                if isinstance(part, Tensor | tuple | list):
                    args = {"input": {"node": name}, "index": index}
                    self._remember(part, self.node("function", "element", args))

    def _reads_data(self, value: Any) -> bool:
        return isinstance(value, Tensor) and self._names.get(id(value)) in self._from_data

    @contextmanager
    def _silent(self) -> Iterator[None]:
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _watch(self) -> None:
        """Replaces the forwards: layers are written down as one, others tell where we are."""
        inside = ""
        for path, module in self._module.named_modules(remove_duplicate=False):
            if inside and path.startswith(inside):
                continue
            inside = ""
            kind = kind_of(module) if path else None
            args = kind.describe(module, kind) if kind else None
            if kind is not None and args is not None:
                self.layers[path] = Layer(kind=kind.name, args=args)
                inside = f"{path}."
            if "forward" in module.__dict__:
                continue  # a module under two paths is called by its first
            forward = module.forward
            if kind is not None and args is not None:
                module.__dict__["forward"] = partial(self._called, path, kind, forward)
            else:
                module.__dict__["forward"] = partial(self._entered, path, forward)

    def _entered(self, path: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._path.append(path)
        result = forward(*args, **kwargs)
        self._path.pop()
        return result

    def _called(
        self, path: str, kind: LayerKind, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if self._paused:
            return forward(*args, **kwargs)
        self._path.append(path)
        names = [p.name for p in kind.call]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if len(args) > len(names) or set(given) - set(names):
            raise self.refuse(f"is called in a way that is not read: {', '.join(given)}")
        declared = {p.name: p for p in kind.call}
        encoded = {name: self.encoded(value) for name, value in given.items() if value is not None}
        encoded = {n: v for n, v in encoded.items() if v != declared[n].default}
        with self._silent():
            result = forward(*args, **kwargs)
        self._path.pop()
        return self.result(result, "layer", path, encoded)


def traced_constant(tensor: Tensor) -> Constant:
    """A constant as the file declares it, with its numbers where they are few."""
    values: list[Any] | None = None
    if tensor.numel() <= INLINE:
        values = [
            str(v) if isinstance(v, float) and (v != v or v in (float("inf"), -float("inf"))) else v
            for v in tensor.flatten().tolist()
        ]
    dtype: Any = str(tensor.dtype).removeprefix("torch.")
    return Constant(dtype=dtype, shape=list(tensor.shape), values=values)


def reached(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """The nodes that the outputs need, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if node.name in wanted:
            kept.append(node)
            wanted.update(_nodes_of(node.args))
    return kept[::-1]


def argument_names(module: nn.Module, count: int) -> list[str]:
    """What the module's forward calls its first arguments."""
    found = [
        p.name
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return [*found, *(f"input_{i}" for i in range(len(found), count))][:count]


def _nodes_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if set(value) == {"node"}:
            yield value["node"]
        else:
            for part in value.values():
                yield from _nodes_of(part)
    elif isinstance(value, list):
        for part in value:
            yield from _nodes_of(part)


def _line() -> str:
    """The innermost line of the user's own code."""
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        own = file.parent == Path(__file__).parent
        if not own and "torch" not in file.parts and file.suffix == ".py":
            return f"{file.name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "an unknown line"
