"""The weights that can be pruned: which there are, and all of them as one flat vector."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from pruning.facts import COMPUTED, UNUSED, VECTORS, LayerFact, OtherFact
from pruning.scope import choose
from pruning.spec import Scope

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class MatMul(nn.Module):
    """A product with a matrix on the left, y = W x, or with one on the right for each of a batch.

    Args:
        shape: Of the weight.
        left: Whether the weight is the first factor.
        device: Of the weight, which is not initialised.
    """

    def __init__(self, shape: Sequence[int], left: bool, device: str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape, device=device))
        self.left = left

    def forward(self, x: Tensor) -> Tensor:
        """The product, batched over leading axes."""
        return torch.matmul(self.weight, x) if self.left else torch.matmul(x, self.weight)


ONE_WEIGHT: tuple[type[nn.Module], ...] = (
    nn.Linear, *CONVOLUTIONS, *TRANSPOSED, nn.Bilinear, MatMul
)  # fmt: skip
"""Layer types with one weight, called `weight`."""

_NAMED: tuple[type[nn.Module], ...] = (nn.MultiheadAttention, nn.LSTM, nn.GRU, nn.RNN, *ONE_WEIGHT)


def weight_names(layer: nn.Module) -> Iterator[str]:
    """The parameters of one module that are weights, its submodules' left out."""
    if isinstance(layer, ONE_WEIGHT):
        yield "weight"
    elif isinstance(layer, RECURRENT):
        yield from (n for n, p in layer.named_parameters(recurse=False) if p.ndim == 2)
    elif isinstance(layer, nn.MultiheadAttention):
        yield from (n for n in _ATTENTION if getattr(layer, n) is not None)


def weights_inside(layer: nn.Module) -> list[str]:
    """The same with those of its submodules, by their paths in it."""
    return [
        _joined(path, name) for path, part in layer.named_modules() for name in weight_names(part)
    ]


def kind_of(layer: nn.Module) -> str:
    """What reports call a layer: its type's name, of a subclass that of torch's own type.

    The output projection of torch's attention is of its kind: it is no layer that is called.
    """
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        return nn.MultiheadAttention.__name__
    return next((k.__name__ for k in _NAMED if isinstance(layer, k)), type(layer).__name__)


def embedded(module: nn.Module) -> set[int]:
    """Identities of the parameters that are tables of embeddings."""
    return {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}


@dataclass(frozen=True)
class Prunable:
    """One prunable weight. `aliases` are further layers that hold the very same parameter."""

    layer: str
    kind: str
    param: str
    weight: nn.Parameter
    groups: int = 1
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The parameter's path in the module, the key of its mask."""
        return f"{self.layer}.{self.param}" if self.layer else self.param

    @property
    def label(self) -> str:
        """What facts and reports call it: the layer, or the parameter where a layer has several."""
        return self.layer if self.param == "weight" and self.layer else self.name


@dataclass(frozen=True)
class Seen:
    """What a pass showed of a network's weights, by their paths.

    Args:
        kinds: Of the parameters that products multiply by, see `pruning.uses.Uses`.
        heads: Those that make an output.
        multiply_adds: A sample, in all; None where sizes are not known.
        activations: Bytes a sample that a layer puts out, by the layer's path.
        computed: Matrices that a factor of a product is computed from.
        taken: Parameters that some operation took; None where that is not known.
        beside: Weights that a product outside the calls of their layers uses.
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    heads: Collection[str] = ()
    multiply_adds: Mapping[str, int] | None = None
    activations: Mapping[str, int] = field(default_factory=dict)
    computed: Collection[str] = ()
    taken: Collection[str] | None = None
    beside: Collection[str] = ()


def layer_facts(
    module: nn.Module,
    seen: Seen | None = None,
    sources: Mapping[str, str] | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> list[LayerFact]:
    """One fact for each weight in module order, called after its layer, or its path beside others.

    Args:
        module: The network.
        seen: What a pass showed; weights that no operation of it took are left out. Nothing of
            sizes, heads, use and weights without a layer is known without it.
        sources: Parameter path to tensor name, shared parameters under each path. Weights without
            one are left out; without it every weight has its path.
        dtypes: Tensor name to the name of its type in the file; the parameter's own without it.
    """
    seen = seen or Seen()
    tables = embedded(module)
    heads = _ids(module, seen.heads)
    held = _held(module)
    beside = _ids(module, seen.beside)
    used = None if seen.taken is None else _ids(module, seen.taken)
    first: dict[int, str] = {}
    facts = []
    for path, layer in module.named_modules(remove_duplicate=False):
        own = dict.fromkeys(weight_names(layer), kind_of(layer))
        for param, parameter in layer.named_parameters(recurse=False):
            kind = seen.kinds.get(_joined(path, param))
            if kind is not None and id(parameter) not in held:
                own[param] = kind
        for param, kind in own.items():
            weight = getattr(layer, param)
            full = _joined(path, param)
            source = full if sources is None else sources.get(full)
            if source is None or not isinstance(weight, nn.Parameter):
                continue
            if not weight.is_floating_point() or (used is not None and id(weight) not in used):
                continue
            name = path if path and param == "weight" else full
            size = weight.numel()
            macs = None if seen.multiply_adds is None else seen.multiply_adds.get(full, 0)
            groups = getattr(layer, "groups", 1)
            facts.append(
                LayerFact(
                    name=name,
                    layer=path,
                    kind=kind,
                    weight=source,
                    shape=list(weight.shape),
                    parameters=size,
                    dtype=_dtype(weight) if dtypes is None else dtypes[source],
                    groups=groups if isinstance(groups, int) else 1,
                    positions=None if macs is None else round(macs / size) if size else 0,
                    macs=macs,
                    activation_bytes=seen.activations.get(path),
                    is_output=id(weight) in heads,
                    tied_to=first.get(id(weight)),
                    embedding=id(weight) in tables,
                    beside=id(weight) in beside,
                    zeros=None if weight.is_meta else size - int(torch.count_nonzero(weight)),
                )
            )
            first.setdefault(id(weight), name)
    return facts


def other_facts(
    module: nn.Module, layers: Sequence[LayerFact], seen: Seen | None = None
) -> list[OtherFact]:
    """The parameters that are no weights of `layers`: matrices each, vectors together.

    Args:
        module: The network.
        layers: Facts of its weights.
        seen: What a pass showed.
    """
    known = {id(p.weight) for p in prunables(module, layers)}
    tables = embedded(module)
    computed = set() if seen is None else set(seen.computed)
    held = _held(module)
    others, vectors = [], 0
    for name, parameter in module.named_parameters():
        if id(parameter) in known:
            continue
        if parameter.ndim < 2 or not parameter.is_floating_point():
            vectors += parameter.numel()
            continue
        kind = UNUSED if id(parameter) in held else nn.Parameter.__name__
        kind = nn.Embedding.__name__ if id(parameter) in tables else kind
        kind = COMPUTED if name in computed else kind
        label = name.removesuffix(".weight")
        others.append(OtherFact(name=label, kind=kind, parameters=parameter.numel()))
    if vectors:
        others.append(OtherFact(name=VECTORS, kind=VECTORS, parameters=vectors))
    return others


def prunables(module: nn.Module, layers: Sequence[LayerFact]) -> list[Prunable]:
    """The weights that facts are of, each tied parameter once."""
    found: dict[str, Prunable] = {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for fact in layers:
        if fact.tied_to is not None:
            known = found[fact.tied_to]
            found[fact.tied_to] = replace(known, aliases=(*known.aliases, fact.name))
            continue
        path = _joined(fact.name, "weight")
        owner, _, param = (path if path in parameters else fact.name).rpartition(".")
        weight = parameters[_joined(owner, param)]
        found[fact.name] = Prunable(owner, fact.kind, param, weight, fact.groups)
    return list(found.values())


def prunable_layers(module: nn.Module) -> list[Prunable]:
    """All prunable weights in module order, each tied parameter once, whatever the scope.

    Args:
        module: The network.

    Raises:
        SecateurError: `no_prunable_layers` if there is none.
    """
    layers = layer_facts(module)
    if not layers:
        choose(layers, Scope())
    return prunables(module, layers)


def find_prunable(module: nn.Module, scope: Scope, heads: Collection[str] = ()) -> list[Prunable]:
    """The prunable weights in scope, in module order, each tied parameter once.

    Args:
        module: The network.
        scope: See `pruning.scope.choose`.
        heads: Paths of the weights that make an output.

    Raises:
        SecateurError: What `choose` raises.
    """
    layers = layer_facts(module, Seen(heads=heads))
    kept = {fact.name for fact in choose(layers, scope).kept}
    return [p for p in prunables(module, layers) if p.label in kept]


def _held(module: nn.Module) -> set[int]:
    """Ids of the weights of layers."""
    return {id(getattr(layer, name)) for layer in module.modules() for name in weight_names(layer)}


def _ids(module: nn.Module, paths: Iterable[str]) -> set[int]:
    return {id(module.get_parameter(path)) for path in paths}


def _joined(path: str, leaf: str) -> str:
    return f"{path}.{leaf}" if path else leaf


def _dtype(weight: Tensor) -> str:
    return str(weight.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class FlatWeights:
    """All weights in scope as one vector, layer after layer, each in row-major order."""

    layers: list[Prunable]

    def __len__(self) -> int:
        return sum(self.sizes)

    @cached_property
    def sizes(self) -> list[int]:
        """Entries of each layer's weight."""
        return [p.weight.numel() for p in self.layers]

    @cached_property
    def group(self) -> Tensor:
        """For each flat position the number of its layer."""
        sizes = torch.tensor(self.sizes, device=self.device)
        return torch.repeat_interleave(torch.arange(len(sizes), device=self.device), sizes)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.layers[0].weight.device

    def holding(self, active: Tensor) -> list[Prunable]:
        """The layers that hold any of the `active` flat positions (ascending)."""
        ends = torch.tensor(self.sizes, device=self.device).cumsum(0)
        before = torch.searchsorted(active, ends).tolist()
        return [p for p, a, b in zip(self.layers, [0, *before], before, strict=False) if b > a]

    def read(self) -> Tensor:
        """A copy of the weights in float64."""
        return torch.cat([p.weight.detach().double().flatten() for p in self.layers])

    @torch.no_grad()
    def write(self, flat: Tensor) -> None:
        """Set the weights, rounded to each layer's own dtype."""
        for layer, part in zip(self.layers, self.split(flat), strict=True):
            layer.weight.copy_(part)

    def split(self, flat: Tensor) -> list[Tensor]:
        """A flat vector as one tensor a layer, in the shape of its weight."""
        parts = flat.split(self.sizes)
        return [p.view_as(w.weight) for p, w in zip(parts, self.layers, strict=True)]

    def by_layer(self, flat: Tensor) -> Iterator[tuple[Prunable, Tensor]]:
        """Each layer with its part of a flat vector."""
        return zip(self.layers, self.split(flat), strict=True)
