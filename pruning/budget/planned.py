"""A budget as far as facts tell it, before anything is read. Torch-free."""

from pruning.budget import Budget, Part
from pruning.budget.flops import cost as multiply_adds
from pruning.facts import LayerFact, ModelFacts
from pruning.spec import Spec
from pruning.spec.amount import limit_of

ITEMSIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


def planned_budget(
    spec: Spec, layers: list[LayerFact], model: ModelFacts, *, keep_zeros: bool = False
) -> Budget | None:
    """What may remain, with the bytes of weights estimated from below.

    Args:
        spec: What is asked for.
        layers: In scope, a tied weight once.
        model: All facts.
        keep_zeros: Whether weights that are zero in the model are gone before the first step.

    Returns:
        None where the target is another, or the facts do not tell.

    Raises:
        SecateurError: `spec_conflict` where it can't be met.
    """
    kind = spec.target.kind
    if kind not in ("bytes", "flops"):
        return None
    uses = [_uses(layer, model) for layer in layers]
    if kind == "flops" and None in uses:
        return None
    parts = [
        Part(layer.weight, tuple(layer.shape), ITEMSIZES.get(layer.dtype, 4), used or 0.0)
        for layer, used in zip(layers, uses, strict=True)
    ]
    rest = _beside(parts, model) if kind == "bytes" else 0
    cost = multiply_adds if kind == "flops" else _stored
    found = Budget(kind, float("inf"), rest, parts, cost)
    asked = getattr(spec.target, kind)
    whole = _all(parts, model) if kind == "bytes" else found.dense
    limit = limit_of(asked, whole)
    start = [p.size - (x.zeros or 0) for p, x in zip(parts, layers, strict=True)]
    bound = "at least" if kind == "bytes" else ""
    found = Budget(kind, limit, rest, parts, cost, start if keep_zeros else None, bound)
    found.check()
    return found


def _uses(layer: LayerFact, model: ModelFacts) -> float | None:
    """Of one entry, in all layers that share it; None where sizes are not fixed."""
    same = [layer, *(other for other in model.layers if other.tied_to == layer.name)]
    if any(other.macs is None for other in same):
        return None
    return sum((other.macs or 0) / other.parameters for other in same)


def _stored(part: Part, kept: int) -> float:
    """Bytes of the values that are left, and of where they were."""
    if not kept:
        return 0.0
    marked = part.size / 8 + kept * part.itemsize
    listed = kept * (part.itemsize + 1)
    return min(part.size * part.itemsize, marked, listed)


def _beside(parts: list[Part], model: ModelFacts) -> int:
    """Bytes of the sparse file beside the weights in scope, never more than there are."""
    held = sum(p.size * p.itemsize for p in parts)
    if model.sparse_bytes is None:
        return _others(parts, model)
    return max(_others(parts, model), model.sparse_bytes - held)


def _others(parts: list[Part], model: ModelFacts) -> int:
    """Bytes of the parameters that are not in scope, in the smallest type there is."""
    smallest = min((ITEMSIZES.get(t, 1) for t in model.dtypes), default=1)
    return smallest * max(0, model.parameters - sum(p.size for p in parts))


def _all(parts: list[Part], model: ModelFacts) -> int:
    return sum(p.size * p.itemsize for p in parts) + _others(parts, model)
