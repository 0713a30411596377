"""The definitions of second-order theory, written down as plainly as torch allows."""

import torch
from torch import Tensor
from torch.func import functional_call, hessian, jacrev

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
    if case.loss.name == "mse":
        return torch.nn.functional.mse_loss(output, target)
    return torch.nn.functional.cross_entropy(output[None], target[None])


def mean_loss(case: Case, flat: Tensor) -> Tensor:
    count = case.data.samples
    return sum(sample_loss(case, _module_output(case, flat, n), n) for n in range(count)) / count


def ggn(case: Case) -> Tensor:
    """1/N sum J' H J with the Jacobian and the output Hessian by autograd."""
    flat = case.weights.read()
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for n in range(case.data.samples):
        jacobian = jacrev(lambda w, n=n: _module_output(case, w, n))(flat)
        output = _module_output(case, flat, n).detach()
        curvature = hessian(lambda z, n=n: sample_loss(case, z, n))(output)
        total += (jacobian.T @ curvature @ jacobian).detach()
    return total / case.data.samples


def per_sample_gradients(case: Case) -> Tensor:
    flat = case.weights.read()
    rows = [
        torch.func.grad(lambda w, n=n: sample_loss(case, _module_output(case, w, n), n))(flat)
        for n in range(case.data.samples)
    ]
    return torch.stack(rows).detach()


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
