"""Do the assumptions of second-order pruning hold here? Asked before anything is removed."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pruning.criteria import Problem
from pruning.curvature.products import hessian_products
from pruning.curvature.quadratic import curvature_term, gradient
from pruning.data.batches import ArrayData
from pruning.evidence.view import layers_of
from pruning.job import Job
from pruning.report.trust import Check, DeadInputs
from pruning.trust.check import check
from pruning.trust.lanczos import Spectrum, lanczos, negative_share

GRADIENT = 0.1
"""Largest share of the second-order term that the gradient term may have near a minimum."""

NEGATIVE = 0.1
"""Largest tolerated share of negative curvature, of the spectral mass and of the extremes."""

PROBES, STEPS = 2, 20
"""Random starts of Lanczos' method and products for each."""


def near_minimum(job: Job, removed: Tensor, data: ArrayData) -> Check:
    """The gradient term |g.dw| against 1/2 dw'Hdw, for dw = -w on the weights that are to go.

    Args:
        job: The module is at the dense weights.
        removed: True for the weights that would go at the target, shape [W].
        data: Samples.
    """
    change = torch.where(removed, -job.weights.read(), 0.0)
    g = gradient(job.network(), data, job.loss)
    first = float(g @ change)
    second = 0.5 * curvature_term(job.network(), data, job.loss, change).value
    ratio = abs(first) / second if second > 0 else (0.0 if first == 0 else math.inf)
    near = ratio <= GRADIENT
    message = (
        f"Setting the {int(removed.sum())} weights of least saliency to zero changes the loss by "
        f"{first:.3g} through the gradient (norm {float(g.norm()):.3g}) and by {second:.3g} "
        "through the curvature. "
        + (
            "The network is close enough to a minimum for a theory that takes the gradient as zero."
            if near
            else "The network is not near a minimum: saliencies of OBD and OBS leave the gradient "
            "out and miss its part. The report's predictions contain it. Training to convergence "
            "on the calibration data would help."
        )
    )
    return check("gradient_term", near, ratio, GRADIENT, message)


def negative_curvature(job: Job, data: ArrayData) -> list[Check]:
    """Share of negative curvature of the exact Hessian, by seeded Lanczos runs."""
    network, size = job.network(), len(job.weights)
    generator = torch.Generator().manual_seed(job.spec.seed)

    def product(vector: Tensor) -> Tensor:
        return hessian_products(network, data, job.loss, vector[None])[0]

    spectra: list[Spectrum] = []
    try:
        for number in range(PROBES):
            job.narrator.progress(number, PROBES, "Lanczos")
            signs = torch.randint(2, (size,), generator=generator).double() * 2.0 - 1.0
            spectra.append(lanczos(product, signs.to(job.device), STEPS))
    except (NotImplementedError, RuntimeError) as failure:
        reason = str(failure).splitlines()[0][:160]
        message = f"Not measured: this network has no second derivatives in torch ({reason})."
        return [check("negative_curvature", False, None, NEGATIVE, message)]
    low = min(float(s.values.min()) for s in spectra)
    high = max(float(s.values.max()) for s in spectra)
    share = negative_share(spectra)
    ratio = max(0.0, -low) / high if high > 0 else (0.0 if low >= 0 else math.inf)
    mass = (
        f"About {share:.1%} of the Hessian's spectral mass lies below zero ({PROBES} Lanczos runs "
        f"of {STEPS} products, {data.samples} samples)"
    )
    left_out = (
        ": little enough for the Gauss-Newton matrix, which leaves it out, to stand for it."
        if max(share, ratio) <= NEGATIVE
        else ". Saliencies from the Gauss-Newton matrix leave it out: the loss may rise less, or "
        "fall, where they foretell a rise. The report's predictions contain it. More training "
        "would help."
    )
    return [
        check("negative_curvature", share <= NEGATIVE, share, NEGATIVE, mass + left_out),
        check(
            "lowest_eigenvalue",
            ratio <= NEGATIVE,
            ratio,
            NEGATIVE,
            f"The Hessian's eigenvalues reach from about {low:.3g} to {high:.3g}: the most "
            f"negative one is {ratio:.2g} times the largest.",
        ),
    ]


def dead_inputs(job: Job, data: ArrayData) -> tuple[Check, list[DeadInputs]]:
    """Inputs of the layers in scope that are zero for every sample and position."""
    module, weights = job.module, job.weights
    seen: dict[int, Tensor] = {}

    def listen(number: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach() != 0
            dims = len(getattr(layer, "kernel_size", ()))
            alive = x.reshape(-1, x.shape[-1]) if dims == 0 else x.movedim(-dims - 1, -1)
            alive = alive.reshape(-1, alive.shape[-1]).any(0)
            seen[number] = seen[number] | alive if number in seen else alive

        return hook

    handles = [
        layer.register_forward_pre_hook(listen(number))
        for number, layer in layers_of(module, weights)
    ]
    try:
        with torch.no_grad():
            for inputs, _ in data.batches(64, device=job.device):
                module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for number, layer in enumerate(weights.layers):
        if number not in seen:
            continue
        dead = int((~seen[number]).sum())
        each = layer.weight.numel() // len(seen[number])
        found.append(
            DeadInputs(name=layer.layer, inputs=len(seen[number]), dead=dead, weights=dead * each)
        )
    dead = sum(f.dead for f in found)
    places = ", ".join(f"{f.name} ({f.dead} of {f.inputs})" for f in found if f.dead)
    message = (
        f"Inputs that are zero for all {data.samples} samples: {places}. The "
        f"{sum(f.weights for f in found)} weights that only see them have no curvature and are "
        "free to remove as far as these samples tell; on other data they may matter."
        if dead
        else f"Every input of every layer in scope is used by some of {data.samples} samples."
    )
    return check("dead_inputs", dead == 0, float(dead), 0.0, message), found


def samples_against_weights(job: Job, problem: Problem, data: ArrayData) -> Check | None:
    """The rank that the samples allow the curvature to have, against the number of weights."""
    if problem.curvature is None:
        return None
    inputs, target = next(iter(data.batches(1, device=job.device)))
    network = job.network()
    with torch.no_grad():
        outputs = network.outputs(network.parameters(), inputs)
        factor = job.loss.factor(outputs[0].double(), None if target is None else target[0])
        columns = int(torch.linalg.matrix_rank(factor))
    samples, size = job.data.calibration.samples, len(job.weights)
    bound = samples * max(1, columns)
    enough = bound >= size
    message = (
        f"{samples} samples with {columns} independent outputs each give the Gauss-Newton matrix "
        f"a rank of at most {bound}, for {size} weights"
        + (
            "."
            if enough
            else ": the curvature can't know all directions, and what it calls free may not be. "
            "More calibration samples would help."
        )
    )
    return check("samples_against_weights", enough, bound / size, 1.0, message)
