"""The failure of a factorisation, with what the report needs to say about it."""

import torch
from torch import Tensor


class SingularError(ArithmeticError):
    """A damped curvature matrix is singular to working precision, or too nearly so.

    Args:
        weights: Active positions that the matrix (or the offending block) covers, shape [n].
        values: That matrix, damped, shape [n, n], where it was formed.
        diagonal: Its diagonal, shape [n], where it was not.
        spectrum: Its eigenvalues that are not zero by construction, where they are known.
        reason: What failed, where it was not a factorisation.
        bound: What its condition number is at most, where its eigenvalues are not known.
    """

    def __init__(
        self,
        weights: Tensor,
        values: Tensor | None = None,
        *,
        diagonal: Tensor | None = None,
        spectrum: Tensor | None = None,
        reason: str = "",
        bound: float | None = None,
    ) -> None:
        super().__init__(
            reason or "the damped curvature is not positive definite to working precision"
        )
        self.weights, self.values, self._diagonal = weights, values, diagonal
        self._spectrum, self.reason, self.bound = spectrum, reason, bound

    @property
    def diagonal(self) -> Tensor:
        """The matrix's diagonal, shape [n]."""
        if self.values is not None:
            return self.values.diagonal()
        assert self._diagonal is not None
        return self._diagonal

    def rank_and_condition(self) -> tuple[int, float] | None:
        """Numerical rank and condition number by the eigenvalues; None where these aren't known."""
        size = len(self.weights)
        spectrum = self._spectrum
        if self.values is not None:
            if not bool(torch.isfinite(self.values).all()):
                return 0, float("inf")
            spectrum = torch.linalg.eigvalsh(self.values)
        if spectrum is None:
            return None
        if not bool(torch.isfinite(spectrum).all()):
            return 0, float("inf")
        high = float(spectrum.max())
        low = float(spectrum.min()) if len(spectrum) >= size else 0.0
        floor = max(high, 0.0) * size * torch.finfo(torch.float64).eps
        return int((spectrum > floor).sum()), high / low if low > 0 else float("inf")
