"""Diagonals of curvature by BackPACK and by curvlinops, where these are installed."""

import importlib.util
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pruning.data.batches import ArrayData

Runs = dict[str, Callable[[], object]]
PRODUCTS = 5
"""Products with the matrix that an estimate by curvlinops may use."""


def by_backpack(module: nn.Module, data: ArrayData, batch: int, *, second_order: bool) -> Runs:
    """Diagonals of the weights of linear and convolutional layers; `module` becomes its own.

    Args:
        module: The network.
        data: Samples and labels.
        batch: Samples a pass.
        second_order: Whether BackPACK can propagate through every layer of the network, which its
            Gauss-Newton diagonals need; the Fisher diagonal only needs the layers with weights.
    """
    if importlib.util.find_spec("backpack") is None:
        print("BackPACK is not installed: its times are absent")
        return {}
    from backpack import backpack, extend, extensions

    for layer in [module] if second_order else module.modules():
        if second_order or isinstance(layer, nn.Linear | nn.Conv2d):
            extend(layer)
    loss = nn.CrossEntropyLoss(reduction="sum")
    if second_order:
        loss = extend(loss)

    def run(extension: type) -> None:
        for (x,), y in data.batches(batch):
            module.zero_grad()
            with backpack(extension()):
                loss(module(x.requires_grad_()), y).backward()

    kinds = {"empirical Fisher": extensions.SumGradSquared}
    if second_order:
        kinds["one-sample GGN"] = extensions.DiagGGNMC
        kinds["exact GGN"] = extensions.DiagGGNExact
    return {f"{name}, BackPACK": partial(run, kind) for name, kind in kinds.items()}


def by_curvlinops(module: nn.Module, data: ArrayData, batch: int) -> Runs:
    """Estimates from `PRODUCTS` products with the matrix: curvlinops forms no diagonal itself.

    Hutchinson's estimate v * Av, averaged over random signs v, has the diagonal as its mean.
    """
    if importlib.util.find_spec("curvlinops") is None:
        print("curvlinops is not installed: its times are absent")
        return {}
    import curvlinops

    weights = [p for p in module.parameters() if p.ndim > 1]
    batches = [(x, y) for (x,), y in data.batches(batch)]

    def run(operator: type) -> Tensor:
        # Fused attention has no forward derivatives, from which its products are made.
        with sdpa_kernel(SDPBackend.MATH):
            loss = nn.CrossEntropyLoss()
            matrix = operator(module, loss, weights, batches, check_deterministic=False)
            estimate: Tensor = curvlinops.hutchinson_diag(matrix, PRODUCTS)
            return estimate

    kinds = {
        "empirical Fisher": curvlinops.EFLinearOperator,
        "exact GGN": curvlinops.GGNLinearOperator,
    }
    return {
        f"{name}, curvlinops ({PRODUCTS} products)": partial(run, kind)
        for name, kind in kinds.items()
    }


def relative_error(estimate: Tensor, exact: Tensor) -> float:
    """The distance of an estimate, in units of the length of the exact diagonal."""
    distance = torch.linalg.vector_norm(estimate.double() - exact)
    return float(distance / torch.linalg.vector_norm(exact))
