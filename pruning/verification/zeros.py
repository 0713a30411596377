"""Zeros of the written model: those asked for, by layer, and in the pattern's groups."""

import numpy as np
import torch
from torch import Tensor

from pruning.curvature.layers.matrix import Form
from pruning.layers import prunable_layers
from pruning.patterns.shape import layer_pattern
from pruning.report.schema import Check, LayerReport
from pruning.solvers.layer_patterns import into_groups
from pruning.spec import Unstructured
from pruning.verification.outcome import judged
from pruning.verification.written import Written


def zeros(written: Written) -> list[Check]:
    """All checks on zeros."""
    checks = [exact_zeros(written), zeros_by_layer(written)]
    if written.report.spec.scope.existing_zeros == "keep":
        checks += zeros_kept(written)
    if not isinstance(written.report.spec.pattern, Unstructured):
        checks.append(pattern_kept(written))
    return checks


def exact_zeros(written: Written) -> Check:
    """Every masked position is zero in the file, and their number is the one that was removed."""
    wanted = written.report.sparsity.removed
    zero = masked = 0
    for name, kept in written.reference.masks.items():
        weight = written.again.module.get_parameter(name).detach()
        gone = ~torch.from_numpy(kept)
        zero += int((weight[gone] == 0).sum())
        masked += int(gone.sum())
    return judged(
        "exact_zeros",
        zero == masked == wanted,
        zero,
        wanted,
        f"Exactly {wanted:,} positions were removed, and all of them are 0 in the written file.",
        f"{zero:,} of {masked:,} masked positions are 0 in the written file; "
        f"{wanted:,} were to be removed.",
    )


def zeros_by_layer(written: Written) -> Check:
    """Zeros of each layer, counted in the file as read again, against the report.

    A kept weight too small for the file's type becomes a zero on top: worth a warning, no failure.
    """
    more, fewer = 0, 0
    for layer in written.report.layers:
        held = weight_of(written, layer)
        extra = held.numel() - int(torch.count_nonzero(held)) - layer.zeros
        more, fewer = more + max(0, extra), fewer + max(0, -extra)
    check = judged(
        "zeros_by_layer",
        fewer == 0,
        more + fewer,
        0,
        "Each layer has as many zeros in the written file as this report says.",
        f"Layers of the written file lack {fewer:,} zeros that the report counts.",
    )
    if more and not fewer:
        check.status = "warn"
        check.message = f"{more:,} kept weights are too small for the file's type and became 0."
    return check


def zeros_kept(written: Written) -> list[Check]:
    """What was zero in the upload, of the layers in scope, is zero in the file; none without."""
    lost = found = 0
    for name in written.reference.masks:
        before = written.uploaded.module.get_parameter(name).detach() == 0
        after = written.again.module.get_parameter(name).detach() == 0
        found += int(before.sum())
        lost += int((before & ~after).sum())
    if not found:
        return []
    return [
        judged(
            "zeros_kept",
            lost == 0,
            lost,
            0,
            f"All {found:,} weights in scope that were zero in the upload are 0 in the written "
            "file.",
            f"{lost:,} of {found:,} weights in scope that were zero in the upload are not 0 in the "
            "written file.",
        )
    ]


def pattern_kept(written: Written) -> Check:
    """Groups of the pattern, in the file and in the masks.

    N:M: at most n of every m neighbours along the input channels are not zero, and the mask keeps
    no more. Blocks: the mask takes a block as a whole, and what it takes is zero.
    """
    spec = written.report.spec.pattern
    assert not isinstance(spec, Unstructured)
    pattern = layer_pattern(spec)
    convolved = {p.name: p.groups for p in prunable_layers(written.again.module)}
    groups = wrong = 0
    for name, mask in written.reference.masks.items():
        weight = written.again.module.get_parameter(name).detach()
        form = Form(tuple(weight.shape), convolved.get(name, 1))
        kept, standing = (
            into_groups(_ordered(form, part), pattern).flatten(0, -2)
            for part in (torch.from_numpy(np.ascontiguousarray(mask)), weight != 0)
        )
        groups += len(kept)
        if pattern.kind == "nm":
            bad = (standing.sum(1) > pattern.keep) | (kept.sum(1) > pattern.keep)
        else:
            bad = (kept.any(1) != kept.all(1)) | (standing & ~kept).any(1)
        wrong += int(bad.sum())
    size = f"{pattern.keep}:{pattern.columns}" if pattern.kind == "nm" else "blocks"
    rule = (
        f"at most {pattern.keep} of every {pattern.columns} neighbours along the input channels "
        "are not 0"
        if pattern.kind == "nm"
        else f"blocks of {pattern.rows} x {pattern.columns} are 0 as a whole or were kept"
    )
    return judged(
        "pattern",
        wrong == 0,
        wrong,
        0,
        f"In all {groups:,} groups of the written file {rule}.",
        f"{wrong:,} of {groups:,} groups of the written file break the pattern {size}: {rule}, "
        "in all others.",
    )


def _ordered(form: Form, entries: Tensor) -> Tensor:
    """A weight's entries as its matrices, input channels side by side."""
    matrix, order = form.matrix(entries), form.neighbours()
    return matrix if order is None else matrix[..., order]


def weight_of(written: Written, layer: LayerReport) -> Tensor:
    """A layer's weight in the written model."""
    again = written.again
    name = f"{layer.name}.weight"
    return again.module.get_parameter(name if name in again.weight_names else layer.name)
