"""Which weights a spec prunes, and of the others why not. Torch-free, so that a plan says the same.

A weight is left out by the spec (`scope`), by the method (a criterion or a pattern that is not
defined for its kind of layer), or because it is no factor of a product: embeddings, biases.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pruning.catalogue.compensation.layerwise import Layerwise
from pruning.catalogue.criteria.layer_obs import LayerOBS
from pruning.catalogue.criteria.obs import OBS
from pruning.catalogue.criteria.wanda import Wanda
from pruning.errors import SecateurError
from pruning.facts import COMPUTED, UNUSED, VECTORS, LayerFact, OtherFact
from pruning.name_patterns import NamePatterns
from pruning.report.schema import ReportWarning
from pruning.report.scope import OutOfScope, ScopeSection
from pruning.spec import OWLAllocation, Scope, Spec, Unstructured

DESCRIBED = ("Linear", "Conv1d", "Conv2d", "Conv3d")
"""Kinds of layer that every method describes."""

GROUPED = (*DESCRIBED, "MultiheadAttention")
"""Kinds whose weights have rows of outputs and columns of input channels, as patterns want them."""

_MOST_WILDCARDS = 600
"""Of all patterns of a list; compiling them takes a tenth of a millisecond each."""

_MOST_STEPS = 50_000_000
"""What comparing patterns with names may cost at most; see `NamePatterns.steps`."""

Lack = Callable[[LayerFact], str | None]
"""Why a method can't prune a weight; None where it can."""


@dataclass(frozen=True)
class Chosen:
    """What a spec prunes.

    Args:
        kept: In scope, a tied weight once, under the layer that comes first.
        left: The other weights, each with the reason.
    """

    kept: list[LayerFact]
    left: list[OutOfScope]


def lack_of(spec: Spec) -> Lack:
    """What the methods of a spec are not defined for.

    Args:
        spec: Names criterion, pattern and allocation.
    """
    criterion = spec.criterion
    heard: list[str] = []
    rules: list[tuple[str, Callable[[LayerFact], bool]]] = []
    if isinstance(criterion, OBS) and criterion.inverse in ("kfac", "ekfac"):
        rules.append((f"inverse {criterion.inverse}", _described))
    if getattr(criterion, "curvature", None) == "second_backprop":
        rules.append(("curvature second_backprop", _described))
    if not isinstance(spec.pattern, Unstructured):
        rules.append((f"pattern {spec.pattern.kind}", lambda layer: layer.kind in GROUPED))
    if isinstance(spec.compensation, Layerwise):
        rules.append(("compensation layerwise", _one_matrix))
    if isinstance(criterion, LayerOBS):
        rules.append(("criterion layer_obs", _one_matrix))
    if isinstance(criterion, Wanda):
        heard.append("criterion wanda")
    if isinstance(spec.allocation, OWLAllocation):
        heard.append("allocation owl")
    rules += [(what, _held) for what in heard]

    def lack(layer: LayerFact) -> str | None:
        for what, can in rules:
            if not can(layer):
                return f"{what} is not defined for weights of the kind {layer.kind}"
        if heard and layer.beside and _described(layer):
            return f"{heard[0]} does not see the products outside the layer that use its weight too"
        return None

    return lack


def _described(layer: LayerFact) -> bool:
    return layer.kind in DESCRIBED


def _one_matrix(layer: LayerFact) -> bool:
    """Whether the weight is one matrix, or one for each group: no tensor that takes two inputs."""
    return layer.kind != "Bilinear" and not (layer.kind == "MatMul" and len(layer.shape) != 2)


def _held(layer: LayerFact) -> bool:
    """Whether the layer tells which axes of its weight are inputs."""
    return layer.kind not in ("Bilinear", "MatMul")


def names_of(name: str, layer: str | None) -> tuple[str, ...]:
    """What a pattern of names may match: the path of one of a layer's weights, and the layer's."""
    return tuple(dict.fromkeys((name, layer or name)))


def check_patterns(
    patterns: tuple[str, ...], layers: Sequence[LayerFact], where: str = "spec.scope.exclude"
) -> None:
    """Refuses a pattern that matches no layer, which is a typing error.

    Args:
        patterns: Shell patterns.
        layers: The prunable layers.
        where: The field that holds the patterns.

    Raises:
        SecateurError: `spec_invalid`.
    """
    names = [name for x in layers for name in names_of(x.name, x.layer)]
    several = NamePatterns(patterns)
    if several.wildcards > _MOST_WILDCARDS or several.steps(names) > _MOST_STEPS:
        raise SecateurError(
            "spec_invalid",
            f"{len(patterns)} patterns have too many wildcards for the names of {len(layers):,} "
            "layers.",
            where=where,
            hint="Name more layers with one pattern, or use fewer wildcards; whole names without "
            "wildcards cost nothing.",
        )
    pattern = several.first_unmatched(names)
    if pattern is not None:
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise SecateurError(
            "spec_invalid",
            f"The pattern {pattern!r} matches none of the {len(layers)} prunable layers.",
            where=where,
            hint=f"The layers are: {shown}.",
        )


def choose(layers: Sequence[LayerFact], scope: Scope, lack: Lack | None = None) -> Chosen:
    """Layers whose weights may go, and the others with the reason.

    A tied weight is left out as soon as one of its layers is.

    Args:
        layers: All prunable layers of the model.
        scope: Of the spec.
        lack: Why the method can't prune a layer; it can prune all of them without it.

    Raises:
        SecateurError: `no_prunable_layers`, `spec_invalid` for a pattern that matches nothing,
            `scope_empty` where everything is left out.
    """
    if not layers:
        raise SecateurError(
            "no_prunable_layers",
            "The model has no layer with a constant weight that a product multiplies by.",
            hint="Upload a model with linear, convolutional, recurrent or attention layers.",
        )
    check_patterns(scope.exclude, layers)
    reasons: dict[str, tuple[str, str]] = {}
    excluded = NamePatterns(scope.exclude)
    for layer in layers:
        found = _reason(layer, scope, excluded, lack)
        if found is not None:
            reasons.setdefault(layer.tied_to or layer.name, found)
    first = [layer for layer in layers if layer.tied_to is None]
    left = [
        OutOfScope(name=x.name, kind=x.kind, parameters=x.parameters, by=by, reason=reason)
        for x in first
        if x.name in reasons
        for by, reason in [reasons[x.name]]
    ]
    kept = [layer for layer in first if layer.name not in reasons]
    if not kept:
        raise _empty(left, len(layers))
    return Chosen(kept, left)


def _reason(
    layer: LayerFact, scope: Scope, excluded: NamePatterns, lack: Lack | None
) -> tuple[str, str] | None:
    if excluded.match(names_of(layer.name, layer.layer)):
        return "spec", "excluded by scope.exclude"
    if layer.is_output and not scope.output_head:
        return "spec", "of the output head, which scope.output_head: false excludes"
    if layer.embedding:
        return "kind", "also the table of embeddings, which is not pruned"
    reason = None if lack is None else lack(layer)
    return None if reason is None else ("method", reason)


def _empty(left: Sequence[OutOfScope], layers: int) -> SecateurError:
    reasons = list(dict.fromkeys(one.reason for one in left))
    asked = all(one.by == "spec" for one in left)
    return SecateurError(
        "scope_empty",
        f"The scope leaves out all {layers} prunable layers: {'; '.join(reasons[:3])}.",
        where="spec.scope" if asked else "spec",
        hint="Exclude fewer layers, or set output_head to true."
        if asked
        else "Use criterion magnitude, obd or obs, which take every kind of layer, with pattern "
        "unstructured.",
    )


def section(
    weights: int, left: Iterable[OutOfScope], others: Iterable[OtherFact], parameters: int
) -> ScopeSection:
    """What is in scope and what is not, for plans and reports.

    Args:
        weights: Weights in scope.
        left: Weights that could be pruned and are not.
        others: Parameters that no spec prunes.
        parameters: All parameters.
    """
    out = [*left, *map(_other, others)]
    vectors = sum(o.parameters for o in out if o.kind == VECTORS)
    total = weights + sum(o.parameters for o in out) - vectors
    return ScopeSection(
        weights_in_scope=weights,
        weights=total,
        parameters=parameters,
        share=weights / total if total else 0.0,
        left_out=out,
    )


_KINDS = {
    COMPUTED: "products take it in a form that can't be pruned, such as a factor computed from it",
    UNUSED: "not used in a forward pass, so that removing it would change nothing",
    "Embedding": "a table of embeddings: looked up, not multiplied by",
    VECTORS: "biases, factors of normalisation and other vectors are not pruned",
}


def _other(other: OtherFact) -> OutOfScope:
    reason = _KINDS.get(other.kind, "no product multiplies values of the network by it as it is")
    return OutOfScope(
        name=other.name,
        kind=other.kind,
        parameters=other.parameters,
        by="method" if other.kind in (COMPUTED, UNUSED) else "kind",
        reason=reason,
    )


def warnings(scope: ScopeSection) -> list[ReportWarning]:
    """One warning for each reason for which weights are left out that one would expect to go."""
    groups: dict[str, list[OutOfScope]] = {}
    for one in scope.left_out:
        if one.by == "method":
            groups.setdefault(one.reason, []).append(one)
    return [
        ReportWarning(
            code="layer_left_out",
            message=f"{sum(o.parameters for o in group):,} weights of {_shown(group)} are left out "
            f"of the scope: {reason.rstrip('.')}.",
            where=group[0].name,
        )
        for reason, group in groups.items()
    ]


def _shown(group: Sequence[OutOfScope]) -> str:
    names = ", ".join(one.name for one in group[:4])
    return names + (f" and {len(group) - 4} more" if len(group) > 4 else "")
