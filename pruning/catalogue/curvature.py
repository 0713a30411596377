"""The kinds of curvature that a spec can name: source, limit and cost of each. Torch-free.

Costs are counted for W weights in scope, N samples, C outputs a sample and M multiply-adds of one
forward pass of one sample; forward and backward pass together take 6 M operations.
"""

from dataclasses import dataclass

from pruning.catalogue.about import Cost, Size

HESSIAN_DIAGONAL_LIMIT = 20_000
"""Active weights beyond which the exact Hessian diagonal (a product each) is refused."""

HESSIAN_LIMIT = 4_096
"""Active weights beyond which the dense exact Hessian is refused."""

LOW_RANK_LIMIT = 2**28
"""Numbers in the gradients of `low_rank` beyond which it is refused (2 GiB in float64)."""

FACTOR_LIMIT = 8_192
"""Longest side of a Kronecker factor (0.5 GiB in float64)."""

RESTRICTED_LIMIT = 2_048
"""Once weights of a layer are gone its Kronecker inverse is no Kronecker product: exact up to this
many weights gone or left in the layer, whichever are fewer."""

EMPIRICAL = frozenset({"empirical_fisher", "fisher", "block_fisher", "low_rank"})
"""Made of the samples' own gradients, and so zero where every sample's loss is at its minimum."""


@dataclass(frozen=True)
class About:
    """What one kind of diagonal is, where it comes from, its operations and most weights."""

    summary: str
    source: str
    cost: str
    limit: int | None = None


DIAGONALS: dict[str, About] = {
    "ggn_diagonal": About(
        "exact diagonal of the Gauss-Newton matrix", "Schraudolph 2002", "6 N C M"
    ),
    "ggn_mc": About(
        "the same, estimated from outcomes that the model draws",
        "Dangel et al. 2020, eq. 20",
        "6 N samples M",
    ),
    "empirical_fisher": About(
        "mean of squared per-sample gradients", "Kunstner et al. 2019", "6 N M"
    ),
    "hessian_diagonal": About(
        "exact diagonal of the Hessian, which may be negative",
        "Pearlmutter 1994",
        "12 N W M",
        HESSIAN_DIAGONAL_LIMIT,
    ),
    "hutchinson": About(
        "the diagonal of the Hessian, estimated from products with random signs",
        "Bekas, Kokiopoulou, Saad 2007",
        "12 N probes M",
    ),
    "second_backprop": About(
        "LeCun's back-propagation of second derivatives, off-diagonal terms dropped layer by layer",
        "LeCun, Denker, Solla 1989, eq. 6 to 9",
        "12 N M",
    ),
}
"""By the name that `criterion.curvature` of `obd` uses."""


def diagonal_cost(kind: str, size: Size, probes: int, samples: int) -> Cost:
    """Bytes and operations of one diagonal."""
    passes = {
        "ggn_diagonal": size.outputs,
        "ggn_mc": samples,
        "empirical_fisher": 1,
        "hessian_diagonal": 2 * size.weights,
        "hutchinson": 2 * probes,
        "second_backprop": 2,
    }[kind]
    held = 8 * size.weights
    if kind in ("hessian_diagonal", "hutchinson"):
        held *= 512 if kind == "hessian_diagonal" else 32
    return Cost(bytes=held, flops=6 * size.samples * passes * size.macs)
