"""Combinations of loss, criterion and curvature that are empty or too large. Torch-free."""

from typing import Any

from pruning.catalogue.criteria.obs import FULL_LIMIT, OBS
from pruning.catalogue.curvature import EMPIRICAL, HESSIAN_LIMIT, RESTRICTED_LIMIT
from pruning.errors import SecateurError
from pruning.spec import NM, AtInitialisation, Rounds, Spec, Unstructured

FIRST_ORDER = frozenset({"taylor", "snip", "grasp"})
"""Criteria that are zero where the gradient is."""


def check_combination(spec: Spec, weights: int, *, elsewhere: bool = False) -> None:
    """Refuses what would score every weight zero.

    `match_dense` has its minimum, zero for every sample, at the dense weights: all gradients vanish
    there, and with them the empirical Fisher matrix. The Gauss-Newton matrix does not.

    Args:
        spec: What is asked for.
        weights: Weights in scope.
        elsewhere: Whether the job names an earlier checkpoint, with which a schedule
            at_initialisation scores away from the dense weights.

    Raises:
        SecateurError: `spec_conflict`.
    """
    criterion: Any = spec.criterion
    _check_stop(spec)
    if spec.objective.needs_labels:
        return
    if elsewhere and isinstance(spec.schedule, AtInitialisation):
        return
    if criterion.kind in FIRST_ORDER:
        raise SecateurError(
            "spec_conflict",
            f"Criterion {criterion.kind} is made of the gradient, which is zero at the dense "
            "weights for objective match_dense: every weight would score the same.",
            where="spec.criterion.kind",
            hint="Use criterion obd or obs with the Gauss-Newton matrix, or an objective with "
            "labels.",
        )
    kind, field = getattr(criterion, "curvature", ""), "curvature"
    if isinstance(criterion, OBS):
        inverse = criterion.resolve(weights)
        if inverse != "full":
            kind, field = inverse, "inverse"
    if kind in EMPIRICAL:
        raise SecateurError(
            "spec_conflict",
            f"{kind} is made of the samples' own gradients, which are zero at the dense weights "
            f"for objective match_dense; the curvature over all {weights} weights would be zero.",
            where=f"spec.criterion.{field}",
            hint="Use the Gauss-Newton matrix: obs with inverse: full (curvature: ggn), kfac or "
            "ekfac, or obd with curvature: ggn_diagonal.",
        )


def _check_stop(spec: Spec) -> None:
    """Refuses to stop rounds by a metric that has no meaning for the objective."""
    stop = spec.schedule.stop if isinstance(spec.schedule, Rounds) else None
    if stop is not None and stop.metric not in spec.objective.measured:
        raise SecateurError(
            "spec_conflict",
            f"The rounds are to stop by {stop.metric}, which has no meaning for the objective "
            f"{spec.objective.loss}.",
            where="spec.schedule.stop.metric",
            hint="accuracy is of class labels, agreement and cosine of objective match_dense; "
            "leave stop out for others.",
        )


def check_sizes(spec: Spec, layers: dict[str, int], steps: int) -> None:
    """Refuses dense and Kronecker inverses beyond their limits.

    Args:
        spec: What is asked for.
        layers: Weights of each layer in scope.
        steps: How often the curvature is computed on the way down.

    Raises:
        SecateurError: `curvature_too_large`.
    """
    criterion: Any = spec.criterion
    if not isinstance(criterion, OBS):
        return
    weights = sum(layers.values())
    inverse = criterion.resolve(weights)
    limit = HESSIAN_LIMIT if criterion.curvature == "hessian" else FULL_LIMIT
    if inverse == "full" and weights > limit:
        gib = 8 * weights * weights / 2**30
        raise SecateurError(
            "curvature_too_large",
            f"inverse: full needs a {weights} x {weights} matrix ({gib:.1f} GiB); the limit for "
            f"curvature {criterion.curvature} is {limit} weights in scope.",
            where="spec.criterion.inverse",
            hint="Set it to block_fisher or auto, or exclude layers with scope.exclude.",
        )
    if inverse in ("kfac", "ekfac") and steps > 1:
        name = max(layers, key=lambda layer: layers[layer])
        if layers[name] > 2 * RESTRICTED_LIMIT:
            raise SecateurError(
                "curvature_too_large",
                f"Once weights of {name} are gone its Kronecker inverse is a dense system: layers "
                f"of more than {2 * RESTRICTED_LIMIT} weights, and it has {layers[name]}, can be "
                "pruned in one step alone.",
                where="spec.schedule",
                hint="Use schedule {kind: one_shot, recomputations: 1}, or inverse: block_fisher.",
            )


def check_pattern(spec: Spec, layers: list[tuple[str, tuple[int, ...], int]]) -> None:
    """Refuses a pattern whose groups do not divide the layers in scope.

    Args:
        spec: What is asked for.
        layers: Name, shape of the weight and number of groups of each layer.

    Raises:
        SecateurError: `spec_conflict`, naming all layers that do not fit.
    """
    pattern = spec.pattern
    if isinstance(pattern, Unstructured):
        return
    rows, columns = (1, pattern.m) if isinstance(pattern, NM) else pattern.shape
    odd = [
        name for name, shape, groups in layers if shape[0] // groups % rows or shape[1] % columns
    ]
    if odd:
        shown = ", ".join(odd[:10]) + (", ..." if len(odd) > 10 else "")
        raise SecateurError(
            "spec_conflict",
            f"Groups of {rows} x {columns} (outputs x input channels) do not divide {len(odd)} of "
            f"{len(layers)} layers: {shown}.",
            where="spec.pattern",
            hint=f"Leave them out with scope: {{exclude: [{', '.join(odd[:10])}]}}, or choose a "
            "pattern that divides them.",
            layers=odd,
        )
