"""What a pattern means for the matrix of a layer: exactly so many entries, ties by position."""

import torch
from torch import Tensor

from pruning.errors import SecateurError
from pruning.solvers.layer import LayerProblem, Pattern


def check(problem: LayerProblem) -> None:
    """Refuse a pattern that does not fit the layer, or a count that it can't reach.

    Raises:
        SecateurError: `spec_invalid` if the pattern makes no sense by itself, `spec_conflict` if
            it does not fit the layer's shape or the weights that are gone, `target_unreachable`
            if the count is not one of those that the pattern allows.
    """
    pattern = problem.pattern
    outputs, inputs = problem.aim.shape[1:]
    _check_kind(pattern)
    if inputs % pattern.columns or outputs % pattern.rows:
        raise SecateurError(
            "spec_conflict",
            f"Groups of {pattern.rows} x {pattern.columns} don't divide a layer of {outputs} "
            f"outputs and {inputs} inputs.",
            where="spec.pattern",
            hint="Exclude the layer, or choose a shape that divides it.",
        )
    gone = already_gone(problem)
    if pattern.kind == "block":
        share = into_groups(gone, pattern).double().mean(-1)
        if bool(((share > 0) & (share < 1)).any()):
            raise SecateurError(
                "spec_conflict",
                "Some weights that were removed before are parts of blocks that still stand.",
                where="spec.pattern",
                hint="Keep the pattern of the earlier rounds, or start from the dense model.",
            )
    allowed = count_of_nm(gone, pattern) if pattern.kind == "nm" else problem.count
    low, high, size = int(gone.sum()), gone.numel(), pattern.rows * pattern.columns
    whole = pattern.kind != "block" or problem.count % size == 0
    if problem.count != allowed or not low <= problem.count <= high or not whole:
        raise SecateurError(
            "target_unreachable",
            f"{problem.count} of {high} weights can't be what pattern {pattern.kind} removes "
            f"({low} are gone already"
            + (f", and {allowed} follow from the pattern)." if pattern.kind == "nm" else ")."),
            where="spec.target",
            hint="Ask for a whole number of groups between those gone and all of them.",
        )


def _check_kind(pattern: Pattern) -> None:
    rows, columns, keep = pattern.rows, pattern.columns, pattern.keep
    fits = {
        "unstructured": rows == columns == 1 and keep == 0,
        "nm": rows == 1 and 0 < keep < columns,
        "block": rows >= 1 and columns >= 1 and keep == 0,
    }
    if pattern.kind not in fits:
        raise SecateurError(
            "spec_invalid",
            f"No pattern of a matrix is called {pattern.kind!r}.",
            where="spec.pattern.kind",
            hint=f"Choose one of {', '.join(fits)}.",
        )
    if not fits[pattern.kind]:
        raise SecateurError(
            "spec_invalid",
            f"Pattern {pattern.kind} with {rows} x {columns} groups, {keep} kept, has no meaning.",
            where="spec.pattern",
            hint="Keep at least one and fewer than all of each group along the inputs (nm), or "
            "remove blocks as a whole (block).",
        )


def already_gone(problem: LayerProblem) -> Tensor:
    """The weights that were removed before, shape [g, o, d]."""
    if problem.gone is None:
        return torch.zeros_like(problem.aim, dtype=torch.bool)
    return problem.gone


def count_of_nm(gone: Tensor, pattern: Pattern) -> int:
    """How many weights an `nm` pattern removes: of each group all but `keep`, or those gone."""
    each = into_groups(gone, pattern).sum(-1)
    return int(each.clamp(min=pattern.columns - pattern.keep).sum())


def into_groups(values: Tensor, pattern: Pattern) -> Tensor:
    """[g, o, d] as [g, o / rows, d / columns, rows * columns], the entries of each group last."""
    g, o, d = values.shape
    r, c = pattern.rows, pattern.columns
    return values.reshape(g, o // r, r, d // c, c).transpose(2, 3).flatten(3)


def from_groups(values: Tensor, pattern: Pattern) -> Tensor:
    """One value for each group, [g, o / rows, d / columns], at each of its entries, [g, o, d]."""
    return values.repeat_interleave(pattern.rows, 1).repeat_interleave(pattern.columns, 2)


def smallest(scores: Tensor, count: int) -> Tensor:
    """Exactly the `count` entries of lowest score, the first by position among equal ones.

    Args:
        scores: Any shape; entries of -inf go first.
        count: How many, 0 ... all.

    Returns:
        True for the entries that go, of the scores' shape.

    Raises:
        SecateurError: `loss_non_finite` if a score is NaN, which has no rank.
    """
    if not 0 <= count <= scores.numel():
        raise ValueError(f"can't choose {count} of {scores.numel()}")
    _check_numbers(scores)
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.flatten().kthvalue(count).values
    gone = scores < threshold
    equal = (scores == threshold).flatten().nonzero()[:, 0]
    # One boolean vector in logical order, whatever the order in memory of the scores.
    flat = gone.flatten()
    flat[equal[: count - int(flat.sum())]] = True
    return flat.view(scores.shape)


def smallest_of_each(scores: Tensor, count: int, gone: Tensor, dim: int) -> Tensor:
    """The `count` lowest along `dim`, those gone before all others and ties by position.

    Where more than `count` are gone, they alone are chosen.

    Raises:
        SecateurError: `loss_non_finite` if a score is NaN.
    """
    _check_numbers(scores)
    ranked = scores.masked_fill(gone, -torch.inf)
    order = ranked.argsort(dim=dim, stable=True)
    first = order.narrow(dim, 0, count)
    return (
        torch.zeros_like(gone).scatter(dim, first, torch.ones_like(first, dtype=torch.bool)) | gone
    )


def _check_numbers(scores: Tensor) -> None:
    if bool(scores.isnan().any()):
        raise SecateurError(
            "loss_non_finite",
            f"{int(scores.isnan().sum())} of {scores.numel()} saliencies are not a number.",
            hint="Check the model's outputs on the calibration data for overflow, and for square "
            "roots and norms of 0, whose derivatives are infinite.",
        )
