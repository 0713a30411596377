"""The weights that can be pruned: which there are, and all of them as one flat vector."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.plan import check_patterns
from pruning.spec import Scope

KINDS: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layer types whose `weight` can be pruned."""


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


def prunable_layers(module: nn.Module) -> list[Prunable]:
    """All prunable weights in module order, each tied parameter once, whatever the scope.

    Raises:
        SecateurError: `no_prunable_layers` if there is none.
    """
    found: dict[int, Prunable] = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        if not isinstance(layer, KINDS):
            continue
        weight = layer.weight
        if not isinstance(weight, nn.Parameter) or not weight.is_floating_point():
            continue
        known = found.get(id(weight))
        if known is None:
            kind = next(k.__name__ for k in KINDS if isinstance(layer, k))
            found[id(weight)] = Prunable(name, kind, "weight", weight, getattr(layer, "groups", 1))
        else:
            aliases = (*known.aliases, name)
            found[id(weight)] = Prunable(
                known.layer, known.kind, known.param, weight, known.groups, aliases
            )
    if not found:
        raise SecateurError(
            "no_prunable_layers",
            "The model has no Linear, Conv1d, Conv2d or Conv3d layer with its own weights.",
            hint="Upload a model with such layers.",
        )
    return list(found.values())


def find_prunable(
    module: nn.Module,
    scope: Scope,
    output_layers: set[str] | None = None,
    layers: list[Prunable] | None = None,
) -> list[Prunable]:
    """The prunable weights in scope, in module order, each tied parameter once.

    A tied parameter is out of scope as soon as one of its layers is; embeddings always are.

    Args:
        module: The network.
        scope: `exclude` holds shell patterns matched against layer names (`*` crosses dots);
            with `output_head` false the `output_layers` are left out too.
        output_layers: Layers whose result reaches an output. Without it, the last prunable layer
            in module order.
        layers: What can be pruned; `prunable_layers` without it.

    Raises:
        SecateurError: `no_prunable_layers`, `spec_invalid` for a pattern that matches no layer, or
            `scope_empty` if the scope leaves nothing.
    """
    layers = prunable_layers(module) if layers is None else layers
    check_patterns(scope.exclude, [name for p in layers for name in (p.layer, *p.aliases)])
    heads = {layers[-1].layer} if output_layers is None else output_layers
    embedded = {
        id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)
    }
    kept = [
        p
        for p in layers
        if id(p.weight) not in embedded
        and not any(_excluded(n, scope, heads) for n in (p.layer, *p.aliases))
    ]
    if not kept:
        raise SecateurError(
            "scope_empty",
            "The scope excludes every prunable layer: " + ", ".join(p.layer for p in layers) + ".",
            where="spec.scope",
            hint="Exclude fewer layers.",
        )
    return kept


def _excluded(layer: str, scope: Scope, heads: set[str]) -> bool:
    if not scope.output_head and layer in heads:
        return True
    return any(fnmatchcase(layer, pattern) for pattern in scope.exclude)


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
