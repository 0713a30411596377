"""Do the assumptions of second-order pruning hold here? Asked before anything is removed."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pruning.catalogue.curvature import EMPIRICAL
from pruning.criteria import Problem
from pruning.curvature import products
from pruning.curvature.derivatives import lacks_derivative, reason
from pruning.curvature.losses import required
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.evidence.layer_inputs import listen
from pruning.evidence.view import layers_of
from pruning.job import Job
from pruning.registry import method
from pruning.report.numbers import count, number
from pruning.report.numbers import share as percent
from pruning.report.trust import Check, DeadInputs
from pruning.trust.check import check
from pruning.trust.directions import Directions
from pruning.trust.lanczos import Spectrum, lanczos, negative_share

GRADIENT = 0.1
"""Largest share of the second-order term that the gradient term may have near a minimum."""

NEGATIVE = 0.1
"""Largest tolerated share of negative curvature, of the spectral mass and of the extremes."""

PROBES, STEPS = 2, 20
"""Random starts of Lanczos' method and products for each."""


def near_minimum(model: Directions, change: Tensor, count: int) -> Check:
    """The gradient term |g.dw| against 1/2 dw'Hdw, for dw = -w on the weights that are to go.

    Args:
        model: At the dense weights.
        change: dw, shape [W].
        count: How many weights go.
    """
    try:
        found = model.along(change[None])
        g, second = found.gradient, 0.5 * float(change @ found.products[0])
    except SecateurError as failure:
        if not lacks_derivative(failure):
            raise
        return check("gradient_term", False, None, GRADIENT, f"Not measured: {failure.message}")
    first = float(g @ change)
    ratio = abs(first) / second if second > 0 else (0.0 if first == 0 else math.inf)
    near = ratio <= GRADIENT
    message = (
        f"Setting the {count:,} weights of least saliency to zero changes "
        f"the loss by "
        f"{number(first)} through the gradient (norm {number(float(g.norm()))}) and by "
        f"{number(second)} "
        "through the curvature. "
        + (
            "The network is close enough to a minimum for OBD and OBS, which take the gradient as "
            "zero."
            if near
            else "The network is not near a minimum: OBD and OBS take the gradient as zero, and "
            "their saliencies miss its part. The report's predictions include it. Training to "
            "convergence on the calibration data would help."
        )
    )
    return check("gradient_term", near, ratio, GRADIENT, message)


def negative_curvature(job: Job, data: ArrayData) -> list[Check]:
    """Share of negative curvature of the exact Hessian, by seeded Lanczos runs."""
    size = len(job.weights)
    generator = torch.Generator().manual_seed(job.spec.seed)
    spectra: list[Spectrum] = []
    try:
        product = products.operator(job.network(), data, job.loss)
        for probe in range(PROBES):
            job.narrator.progress(probe, PROBES, "Lanczos")
            signs = torch.randint(2, (size,), generator=generator).double() * 2.0 - 1.0
            spectra.append(lanczos(product, signs.to(job.device), STEPS))
    except (NotImplementedError, RuntimeError, SecateurError) as failure:
        if not lacks_derivative(failure):
            raise
        message = (
            f"Not measured: this network has no second derivatives in torch ({reason(failure)})."
        )
        return [check("negative_curvature", False, None, NEGATIVE, message)]
    low = min(float(s.values.min()) for s in spectra)
    high = max(float(s.values.max()) for s in spectra)
    share = negative_share(spectra)
    ratio = max(0.0, -low) / high if high > 0 else (0.0 if low >= 0 else math.inf)
    mass = (
        f"About {percent(share)} of the Hessian's spectral mass lies below zero ({PROBES} Lanczos "
        f"runs of {STEPS} products, {count(data.samples)} samples)"
    )
    left_out = (
        ": so little that the Gauss-Newton matrix, which has none, is a good stand-in."
        if max(share, ratio) <= NEGATIVE
        else ". The Gauss-Newton matrix has none, so saliencies from it may predict a rise where "
        "the loss rises less or falls. The report's predictions include it. More training would "
        "help."
    )
    return [
        check("negative_curvature", share <= NEGATIVE, share, NEGATIVE, mass + left_out),
        check(
            "lowest_eigenvalue",
            ratio <= NEGATIVE,
            ratio,
            NEGATIVE,
            f"The Hessian's eigenvalues range from about {number(low)} to {number(high)}: the most "
            f"negative one is {number(ratio)} times the largest.",
        ),
    ]


def dead_inputs(job: Job, data: ArrayData) -> tuple[Check, list[DeadInputs]]:
    """Inputs of the layers in scope that are zero for every sample and position but padding."""
    weights = job.weights
    seen: dict[int, Tensor] = {}

    def hear(number: int, layer: nn.Module, x: Tensor) -> None:
        dims = len(getattr(layer, "kernel_size", ()))
        alive = (x != 0).movedim(-dims - 1, -1)
        alive = alive.reshape(-1, alive.shape[-1]).any(0)
        seen[number] = seen[number] | alive if number in seen else alive

    # An input that is dead in the layer's calls may live in a product beside them.
    beside = {fact.name for fact in job.layer_facts if fact.beside}
    layers = [
        (n, x) for n, x in layers_of(job.module, weights) if weights.layers[n].label not in beside
    ]
    listen(job.module, layers, data, job.loss, hear, job.device)
    found = []
    for place, layer in enumerate(weights.layers):
        if place not in seen:
            continue
        dead = int((~seen[place]).sum())
        each = layer.weight.numel() // len(seen[place])
        found.append(
            DeadInputs(name=layer.layer, inputs=len(seen[place]), dead=dead, weights=dead * each)
        )
    dead = sum(f.dead for f in found)
    named = (f"{f.name} ({count(f.dead)} of {count(f.inputs)})" for f in found if f.dead)
    on_them = count(sum(f.weights for f in found))
    message = (
        f"Inputs that are zero for all {count(data.samples)} samples: {', '.join(named)}. The "
        f"{on_them} weights on them have no curvature and look free to remove; on other data they "
        "may matter."
        if dead
        else "Every input of every layer in scope is used by some of "
        f"{count(data.samples)} samples."
    )
    return check("dead_inputs", dead == 0, float(dead), 0.0, message), found


def samples_against_weights(job: Job, problem: Problem) -> Check | None:
    """The rank that the samples allow the curvature to have, against the number of weights.

    A sample gives the empirical Fisher matrix one gradient, and the Gauss-Newton matrix as many
    rows as its loss's Hessian in the outputs has rank.
    """
    if problem.curvature is None:
        return None
    criterion: Any = job.spec.criterion
    request = method("criteria", criterion.kind).curvature(criterion, len(job.weights))
    calibration, size = job.data.calibration, len(problem.weights)
    samples = request.samples(calibration.samples)
    if request.kind in EMPIRICAL:
        bound = samples
        subject = (
            f"{count(samples)} samples with one gradient each give the empirical Fisher matrix"
        )
    else:
        inputs, _ = next(iter(calibration.batches(1, device=job.device)))
        network = job.network()
        with torch.no_grad():
            outputs = network.outputs(network.parameters(), inputs)
        target = required(calibration.target, job.loss)
        ranks = job.loss.ranks(outputs.expand(samples, *outputs.shape[1:]), target.to(job.device))
        bound = int(ranks.sum())
        subject = (
            f"{count(samples)} samples with {count(bound)} independent outputs together give the "
            f"Gauss-Newton "
            "matrix"
        )
    enough = bound >= size
    message = f"{subject} a rank of at most {count(bound)}, for {count(size)} weights" + (
        "."
        if enough
        else ": some directions are not seen at all, and weights that look free to remove may not "
        "be. More calibration samples would help."
    )
    return check("samples_against_weights", enough, bound / size, 1.0, message)
