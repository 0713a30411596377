"""A budget as far as facts tell it, before anything is read. Torch-free."""

from pruning.budget import Budget, Part
from pruning.budget.flops import cost as multiply_adds
from pruning.facts import VECTORS, LayerFact, ModelFacts
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
    parts = [_part(layer, used or 0.0) for layer, used in zip(layers, uses, strict=True)]
    rest = _beside(layers, parts, model) if kind == "bytes" else 0
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


def _part(layer: LayerFact, uses: float = 0.0) -> Part:
    return Part(layer.weight, tuple(layer.shape), ITEMSIZES.get(layer.dtype, 4), uses)


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


def _beside(layers: list[LayerFact], parts: list[Part], model: ModelFacts) -> int:
    """Bytes of the sparse file beside the weights in scope, never more than there are.

    Zeros take next to nothing wherever they are: of matrices out of scope their non-zero entries
    are counted, and of tables, whose zeros nobody counted, nothing.
    """
    if model.sparse_bytes is not None:
        return max(0, model.sparse_bytes - sum(p.size * p.itemsize for p in parts))
    inside = {layer.name for layer in layers}
    left = [x for x in model.layers if x.tied_to is None and x.name not in inside]
    tables = sum(x.parameters for x in model.others if x.kind != VECTORS)
    hidden = tables + sum(x.parameters for x in left if x.zeros is not None)
    stored = sum(_stored(_part(x), x.parameters - x.zeros) for x in left if x.zeros is not None)
    return max(0, _others(parts, model) - _smallest(model) * hidden) + int(stored)


def _others(parts: list[Part], model: ModelFacts) -> int:
    """Bytes of the parameters that are not in scope, in the smallest type there is."""
    return _smallest(model) * max(0, model.parameters - sum(p.size for p in parts))


def _smallest(model: ModelFacts) -> int:
    return min((ITEMSIZES.get(t, 1) for t in model.dtypes), default=1)


def _all(parts: list[Part], model: ModelFacts) -> int:
    return sum(p.size * p.itemsize for p in parts) + _others(parts, model)
