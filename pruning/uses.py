"""How a network uses its parameters, seen in one pass: the one place that tells three things.

A weight is a parameter by which a product multiplies values that are no parameters: as it is, as a
view of it, or copied into another layout or type. Its multiply-adds are those of the products,
each entry one multiply-add at every place where it is used, as torch's FlopCounterMode counts them:
a transposed convolution uses an entry once an input position, a recurrent layer once a step. A
weight makes an output (it is of the output head) where what it is multiplied into reaches an output
of the network without another weight in between.

Operations are seen below torch's functions, so that neither layers nor formats matter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pruning.calling import Calling
from pruning.data.batches import ArrayData
from pruning.dispatch import Watching
from pruning.layers import TRANSPOSED, MatMul, Seen, weights_inside
from pruning.outputs import named_tensors
from pruning.samples import first_samples

_FACTORS: dict[str, tuple[int, ...]] = {
    "mm": (0, 1),
    "bmm": (0, 1),
    "mv": (0, 1),
    "dot": (0, 1),
    "addmm": (1, 2),
    "baddbmm": (1, 2),
    "addbmm": (1, 2),
    "addmv": (1, 2),
    "_addmm_activation": (1, 2),
    "convolution": (0, 1),
    "_convolution": (0, 1),
    "_trilinear": (0, 1, 2),
    "mkldnn_rnn_layer": (0, 1, 2),
}
"""Operations that multiply, with the places of their factors among the arguments."""

_COPIES = frozenset({"clone", "_to_copy", "cat", "stack", "expand_copy", "t_copy", "permute_copy"})
"""Operations whose results hold the entries of their arguments, elsewhere or in another type."""

SAMPLES = 4
"""Samples that are watched where their number is free."""

MORE = 256
"""Samples that are watched where a few of them leave a layer unused, as of experts."""


@dataclass(frozen=True)
class _Origin:
    """What a value is made of.

    Args:
        moving: Whether it depends on the inputs.
        weights: Where it does, the weights nearest behind it; else the parameters it is a copy of.
        learned: Whether it depends on any parameter.
        made_of: Where it does not depend on the inputs, the matrices that it is computed from.
    """

    moving: bool = False
    weights: frozenset[str] = frozenset()
    learned: bool = False
    made_of: frozenset[str] = frozenset()


_CONSTANT, _INPUT = _Origin(), _Origin(moving=True)


class Uses(Watching):
    """Watches a forward pass; results stay the same.

    Args:
        module: In evaluation mode.

    Attributes:
        multiply_adds: By the path of a weight, of the whole pass. A weight of several layers has
            those of each of them under the path there, where the layer is called as one.
        kinds: Of weights, what they are used in: `MatMul`, `Conv2d`, `ConvTranspose2d`, ...
        heads: Paths of the weights that make an output; set once the pass is over.
        computed: Matrices that a factor of a product is computed from.
        taken: Parameters that some operation took; of those that overlap in memory, each.
        beside: Weights that a product outside the calls of their layers uses.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.multiply_adds: dict[str, int] = {}
        self.kinds: dict[str, str] = {}
        self.heads: set[str] = set()
        self.computed: set[str] = set()
        self.taken: set[str] = set()
        self.beside: set[str] = set()
        self._origins: dict[int, _Origin] = {}
        # Held so that no other storage comes to lie at the address of one that is gone.
        self._storages: dict[int, StorageWeakRef] = {}
        self._parameters: dict[int, list[tuple[int, int, str, bool]]] = {}
        self._paths: dict[str, list[str]] = {}
        self._inside: list[str] = []
        self._sizes: dict[str, int] = {}
        names: dict[int, str] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            first = names.setdefault(id(parameter), name)
            self._paths.setdefault(first, []).append(name)
            if first is not name:
                continue
            self._sizes[name] = parameter.numel()
            key = _storage(parameter)
            if key is not None:
                start = int(parameter.storage_offset())
                end = start + max(1, parameter.numel())
                whole = parameter.ndim > 1 and parameter.is_floating_point()
                self._parameters.setdefault(key, []).append((start, end, name, whole))

    def run(self, *inputs: Tensor, calling: Calling = Calling()) -> Any:
        """The module's result for a batch, watched.

        Args:
            *inputs: The batch.
            calling: How the module takes it.
        """
        for tensor in inputs:
            self._note(tensor, _INPUT)
        with torch.no_grad(), _unfused(), self._called(), self:
            result = calling.of(self.module, inputs)
        self.heads = {
            path
            for _, tensor in named_tensors(result)
            for path in self._origin(tensor).weights
            if self._origin(tensor).moving
        }
        return result

    def seen(self, batch: int) -> Seen:
        """What the pass showed, a sample.

        Args:
            batch: Samples of the pass.
        """
        macs = {path: round(n / batch) for path, n in self.multiply_adds.items()}
        computed = self.computed - self.kinds.keys()
        return Seen(
            self.kinds, self.heads, macs, computed=computed, taken=self.taken, beside=self.beside
        )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name not in _FACTORS and func.overloadpacket not in flop_registry:
            # In inference mode composite operations arrive in one piece.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        self.taken.update(name for t in given for name, _ in self._at(t))
        if name in _FACTORS:
            origin = self._product(func, name, args, kwargs, result)
        else:
            origin = self._mixed(name, given)
        own = {_storage(t) for t in given}
        for _, tensor in named_tensors(result):
            key = _storage(tensor)
            if key in own:
                if func._schema.is_mutable and key not in self._parameters:
                    self._note(tensor, _joined([self._origin(tensor), origin]))
            else:
                self._note(tensor, origin)
        return result

    def _product(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> _Origin:
        places = _FACTORS[name]
        factors = [args[i] for i in places if i < len(args) and isinstance(args[i], Tensor)]
        rest = [t for i, t in enumerate(args) if i not in places and isinstance(t, Tensor)]
        origins = [self._origin(t) for t in factors]
        added = [o for o in map(self._origin, rest) if o.moving]
        fixed = [(t, o) for t, o in zip(factors, origins, strict=True) if not o.moving]
        if not any(o.learned for _, o in fixed):
            return _joined([*origins, *added])
        # A product of parameters alone computes another one, as B A of a merged adapter.
        among_parameters = all(o.learned and not o.moving for o in origins)
        for tensor, origin in fixed:
            self._count(origin.weights, _work(func, name, args, kwargs, result, tensor))
            if not among_parameters:
                self.computed |= origin.made_of
                for weight in origin.weights:
                    self.kinds.setdefault(weight, _kind(name, args, tensor))
        if among_parameters:
            return _joined([_computed(origins), *added])
        if not any(o.moving for o in origins):  # the first state of a recurrent layer, times one
            return _joined([_Origin(learned=True), *added])
        behind = frozenset(w for _, o in fixed for w in o.weights)
        return _joined([_Origin(moving=True, weights=behind, learned=True), *added])

    def _mixed(self, name: str, given: list[Tensor]) -> _Origin:
        origins = [self._origin(t) for t in given]
        if any(o.moving for o in origins):
            return _joined([o for o in origins if o.moving])
        return _joined(origins) if name in _COPIES else _computed(origins)

    def _count(self, weights: frozenset[str], work: int) -> None:
        total = sum(self._sizes[w] for w in weights)
        for weight in weights:
            paths = self._paths[weight]
            inside = next((p for p in paths if p.rpartition(".")[0] in self._inside), None)
            if inside is None:
                self.beside.add(weight)
                inside = paths[0]
            share = work if len(weights) == 1 else work * self._sizes[weight] // total
            self.multiply_adds[inside] = self.multiply_adds.get(inside, 0) + share

    def _origin(self, tensor: Tensor) -> _Origin:
        key = _storage(tensor)
        if key is None:
            return _CONSTANT
        for name, whole in self._at(tensor):
            return _Origin(weights=frozenset({name} if whole else ()), learned=True)
        return self._origins.get(key, _CONSTANT)

    def _at(self, tensor: Tensor) -> Iterator[tuple[str, bool]]:
        """Parameters in whose memory a tensor begins, and whether each is a matrix."""
        key = _storage(tensor)
        for start, end, name, whole in () if key is None else self._parameters.get(key, ()):
            if start <= tensor.storage_offset() < end:
                yield name, whole

    def _note(self, tensor: Tensor, origin: _Origin) -> None:
        key = _storage(tensor)
        if key is not None:
            self._origins[key] = origin
            self._storages.setdefault(key, StorageWeakRef(tensor.untyped_storage()))

    @contextmanager
    def _called(self) -> Iterator[None]:
        """Keeps track of which layers run."""
        holding = {path.rpartition(".")[0] for paths in self._paths.values() for path in paths}
        hooks = []
        for path, part in self.module.named_modules():
            if path not in holding:
                continue

            def enter(part: nn.Module, inputs: Any, path: str = path) -> None:
                self._inside.insert(0, path)

            def leave(part: nn.Module, inputs: Any, output: Any) -> None:
                self._inside.pop(0)

            hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def observed(
    module: nn.Module, data: ArrayData, batch: int | None = None, calling: Calling = Calling()
) -> Seen:
    """What a pass over a few samples shows of a module's weights.

    Args:
        module: In evaluation mode.
        data: Its first samples are run.
        batch: How many, where the network takes no other number.
        calling: How the module takes its inputs.
    """
    seen = _watched(module, data, batch or min(SAMPLES, data.samples), calling)
    used = {id(module.get_parameter(path)) for path in seen.taken or ()}
    unused = any(id(module.get_parameter(path)) not in used for path in weights_inside(module))
    if unused and batch is None and data.samples > SAMPLES:
        seen = _watched(module, data, min(MORE, data.samples), calling)
    return seen


def _watched(module: nn.Module, data: ArrayData, samples: int, calling: Calling) -> Seen:
    inputs = first_samples(module, data, samples)
    uses = Uses(module)
    uses.run(*inputs, calling=calling)
    return uses.seen(len(inputs[0]))


def multiply_adds(layer: nn.Module, taken: int, given: int) -> dict[str, int]:
    """Multiply-adds of each weight in one call of a layer, from sizes alone; what `Uses` counts.

    Args:
        layer: The layer.
        taken: Numbers of its first input.
        given: Numbers of its first output.
    """
    found = {}
    for path in weights_inside(layer):
        owner, _, name = path.rpartition(".")
        part = layer.get_submodule(owner)
        weight: Tensor = getattr(part, name)
        if isinstance(part, TRANSPOSED):
            uses = taken // weight.shape[0]
        elif isinstance(layer, nn.RNNBase) or part is not layer:
            uses = taken // _entries(layer)
        elif isinstance(part, MatMul):
            uses = given * weight.shape[-1 if part.left else -2] // max(1, weight.numel())
        else:
            uses = given // weight.shape[0]
        found[path] = uses * weight.numel()
    return found


def _entries(layer: nn.Module) -> int:
    """Numbers that a recurrent layer takes at one step of one sample."""
    return int(layer.get_parameter(weights_inside(layer)[0]).shape[1])


def _joined(origins: list[_Origin]) -> _Origin:
    moving = any(o.moving for o in origins)
    return _Origin(
        moving,
        frozenset(w for o in origins if o.moving == moving for w in o.weights),
        any(o.learned for o in origins),
        frozenset() if moving else frozenset(w for o in origins for w in o.made_of),
    )


def _computed(origins: list[_Origin]) -> _Origin:
    """What is computed from values that do not depend on the inputs, and is no copy of them."""
    return _Origin(
        learned=any(o.learned for o in origins),
        made_of=frozenset(w for o in origins for w in o.weights | o.made_of),
    )


def _work(
    func: Any, name: str, args: tuple[Any, ...], kwargs: Any, result: Any, factor: Tensor
) -> int:
    """Multiply-adds of one operation by one of its factors."""
    known = flop_registry.get(func.overloadpacket)
    if known is not None:
        return int(known(*args, **kwargs, out_val=result)) // 2
    if name in ("mkldnn_rnn_layer", "_trilinear"):
        return args[0].numel() // args[0].shape[-1] * factor.numel()
    one, two = (args[i] for i in _FACTORS[name][:2])
    return max(int(one.numel()), int(two.numel()))


def _kind(name: str, args: tuple[Any, ...], factor: Tensor) -> str:
    """What a factor that no layer holds is called."""
    if not name.endswith("convolution"):
        return "MatMul"
    return f"Conv{'Transpose' if args[6] else ''}{factor.ndim - 2}d"


def _storage(tensor: Tensor) -> int | None:
    """What tensors over the same memory have in common; None of those without memory."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None


def computed(module: nn.Module, *inputs: Tensor) -> Any:
    """The module's result for a batch, by the same kernels as in `Uses.run`, with nothing watched.

    Args:
        module: In evaluation mode.
        *inputs: The batch.
    """
    with torch.no_grad(), _unfused():
        return module(*inputs)


@contextmanager
def _unfused() -> Iterator[None]:
    """Without fused attention and recurrent layers, which would hide their products."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
