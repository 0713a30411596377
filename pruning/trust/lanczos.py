"""The spectrum of a symmetric matrix that is known by its products alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spectrum:
    """Ritz values and their weights: v' f(A) v is about sum_i weights_i f(values_i) for |v| = 1.

    Args:
        values: Ascending, shape [m].
        weights: Squared first components of the eigenvectors, adding up to 1, shape [m].
    """

    values: Tensor
    weights: Tensor


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Spectrum:
    """Lanczos' method with full reorthogonalisation (Golub and Van Loan 2013, section 10.3).

    The largest and the smallest Ritz value approach the extreme eigenvalues from within, so a
    negative one proves negative curvature.

    Args:
        product: v, shape [n], to A v.
        start: Any vector but zero, shape [n], float64.
        steps: Products at most; with n of them (and distinct eigenvalues) the result is exact.
    """
    vector = start / start.norm()
    basis = [vector]
    diagonal: list[float] = []
    off: list[float] = []
    for step in range(min(steps, len(start))):
        image = product(vector)
        diagonal.append(float(vector @ image))
        everything = torch.stack(basis)
        # Twice is enough (Parlett 1998, section 6.9).
        for _ in range(2):
            image = image - everything.T @ (everything @ image)
        size = float(image.norm())
        scale = max(abs(a) for a in diagonal) + max(off, default=0.0)
        if step + 1 == min(steps, len(start)) or size <= 1e-12 * scale:
            break
        off.append(size)
        vector = image / size
        basis.append(vector)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    beside = torch.tensor(off[: len(diagonal) - 1], dtype=torch.float64)
    tridiagonal = tridiagonal + torch.diag(beside, 1) + torch.diag(beside, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    return Spectrum(values, vectors[0].square())


def negative_share(spectra: list[Spectrum]) -> float:
    """Spectral mass below zero: sum of |eigenvalues| < 0 over the sum of all |eigenvalues|.

    Stochastic Lanczos quadrature (Ubaru, Chen, Saad 2017) with one spectrum a random start.
    """
    mass = [s.weights * s.values.abs() for s in spectra]
    whole = sum(float(m.sum()) for m in mass)
    below = sum(float(m[s.values < 0].sum()) for m, s in zip(mass, spectra, strict=True))
    return below / whole if whole > 0 else 0.0
