"""Kronecker-factored curvature with its eigenvalues corrected (EKFAC; George et al. 2018).

In KFAC's eigenbasis U kron V of each layer the eigenvalues are replaced by the true second moments
s_ij = 1/N sum_n sum_c ([U' D_nc V]_ij)^2, where D_nc is the derivative of column c of sample n in
the weight. Of all diagonals in that basis it is the nearest to the Gauss-Newton block in Frobenius
norm, and the trace is exact.
"""

from torch import Tensor

from pruning.curvature import kfac
from pruning.curvature.kronecker import Kronecker
from pruning.curvature.losses import Loss
from pruning.curvature.network import Network
from pruning.data.batches import ArrayData


def compute(network: Network, data: ArrayData, loss: Loss, active: Tensor) -> Kronecker:
    """The corrected blocks over the `active` flat positions, in float64; two passes over the data.

    Raises:
        SecateurError: As `pruning.curvature.kfac.compute`.
    """
    bases = kfac.eigenbases(network, data, loss, active)
    scales: dict[str, Tensor] = {}
    for name, x, b in kfac.problems(network, data, loss, active):
        left, right, _ = bases[name]
        x = right.transpose(1, 2) @ x.double()
        for column in b:
            turned = (left.transpose(1, 2) @ column.double()) @ x.transpose(2, 3)
            squares = turned.square().sum(0)
            scales[name] = scales[name] + squares if name in scales else squares
    means = {name: values / data.samples for name, values in scales.items()}
    return kfac.assemble(network, active, bases, means)
