"""The definitions of second-order theory, written down as plainly as torch allows."""

import torch
from torch import Tensor
from torch.func import functional_call, hessian, jacrev

from pruning.curvature.losses import MatchDenseKL
from tests.oracle.cases import Case


def _module_output(case: Case, flat: Tensor, n: int) -> Tensor:
    weights = case.weights
    parameters = {p.name: part for p, part in weights.by_layer(flat)}
    inputs = tuple(x[n : n + 1] for x in case.data.inputs.values())
    result = functional_call(case.module, parameters, inputs)
    return (result if isinstance(result, Tensor) else result[0])[0]


def sample_loss(case: Case, output: Tensor, n: int) -> Tensor:
    """The loss straight from torch.nn.functional, not from the code under test."""
    target = case.data.target[n]
    if isinstance(case.loss, MatchDenseKL):
        p, q = output.log_softmax(-1), target.log_softmax(-1)
        return torch.nn.functional.kl_div(p, q, reduction="sum", log_target=True)
    if case.loss.name in ("mse", "match_dense"):
        return torch.nn.functional.mse_loss(output, target)
    if case.loss.name == "bce":
        return torch.nn.functional.binary_cross_entropy_with_logits(output, target)
    if case.loss.name == "causal_lm":
        return torch.nn.functional.cross_entropy(output[:-1], target[1:], ignore_index=-100)
    return torch.nn.functional.cross_entropy(output[None], target[None])


def mean_loss(case: Case, flat: Tensor) -> Tensor:
    count = case.data.samples
    return sum(sample_loss(case, _module_output(case, flat, n), n) for n in range(count)) / count


def output_hessian(case: Case, output: Tensor, n: int) -> Tensor:
    """Second derivatives of one sample's loss in its outputs, row-major."""
    return hessian(lambda z: sample_loss(case, z.view_as(output), n))(output.flatten())


def ggn(case: Case) -> Tensor:
    """1/N sum J' H J with the Jacobian and the output Hessian by autograd."""
    flat = case.weights.read()
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for n in range(case.data.samples):
        jacobian = jacrev(lambda w, n=n: _module_output(case, w, n).flatten())(flat)
        output = _module_output(case, flat, n).detach()
        curvature = output_hessian(case, output, n)
        total += (jacobian.T @ curvature @ jacobian).detach()
    return total / case.data.samples


def per_sample_gradients(case: Case) -> Tensor:
    flat = case.weights.read()
    rows = [
        torch.func.grad(lambda w, n=n: sample_loss(case, _module_output(case, w, n), n))(flat)
        for n in range(case.data.samples)
    ]
    return torch.stack(rows).detach()


def exact_hessian(case: Case) -> Tensor:
    return hessian(lambda w: mean_loss(case, w))(case.weights.read()).detach()


def second_backprop(case: Case, second_derivatives: bool) -> Tensor:
    """The recursion of LeCun et al. 1989 layer by layer, for an nn.Sequential, one sample a time.

    Every layer's Jacobian is formed and its entries are squared.
    """
    totals = {name: torch.zeros_like(w) for name, w in case.module.named_parameters()}
    for n in range(case.data.samples):
        values = [next(iter(case.data.inputs.values()))[n : n + 1]]
        for layer in case.module:
            values.append(layer(values[-1]).detach())
        z = values[-1][0]
        h = hessian(lambda z, n=n: sample_loss(case, z, n))(z).diagonal()
        g = torch.func.grad(lambda z, n=n: sample_loss(case, z, n))(z)
        for number, layer in reversed(list(enumerate(case.module))):
            x = values[number]
            if hasattr(layer, "weight") and not isinstance(layer, torch.nn.BatchNorm2d):
                by_weight = jacrev(
                    lambda w, layer=layer, x=x: functional_call(layer, {"weight": w}, x).flatten()
                )(layer.weight.detach())
                # A shared weight meets one input at each place: the sum of that input squared.
                totals[f"{number}.weight"] += torch.einsum("a...,a->...", by_weight.square(), h)
            slope = jacrev(lambda x, layer=layer: layer(x).flatten())(x).flatten(1)
            back = slope.square().T @ h
            if second_derivatives and slope.shape[0] == slope.shape[1]:
                bend = torch.func.hessian(lambda x, layer=layer: layer(x).sum())
                size = x.numel()
                back = back + bend(x).reshape(size, size).diagonal() * g
            h, g = back.detach(), (slope.T @ g).detach()
    flat = torch.cat([totals[p.name].flatten() for p in case.weights.layers])
    return flat.detach() / case.data.samples


def constrained_minimum(h: Tensor, w: Tensor, removed: Tensor) -> Tensor:
    """Minimise 1/2 d'Hd subject to d_Q = -w_Q by its KKT system."""
    gone = removed.nonzero()[:, 0]
    size, count = len(w), len(gone)
    e = torch.zeros(count, size, dtype=torch.float64)
    e[torch.arange(count), gone] = 1.0
    kkt = torch.zeros(size + count, size + count, dtype=torch.float64)
    kkt[:size, :size], kkt[:size, size:], kkt[size:, :size] = h, e.T, e
    right = torch.cat([torch.zeros(size, dtype=torch.float64), -w[gone]])
    return torch.linalg.solve(kkt, right)[:size]


def textbook_update(h: Tensor, w: Tensor, removed: Tensor) -> Tensor:
    """-Hinv_:Q (Hinv_QQ)^-1 w_Q."""
    inverse = torch.linalg.inv(h)
    gone = removed.nonzero()[:, 0]
    return -inverse[:, gone] @ torch.linalg.solve(inverse[gone][:, gone], w[gone])
