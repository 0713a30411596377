"""The quadratic model at the dense weights, for several parts of trust in one pass."""

import torch
from torch import Tensor

from pruning.curvature.quadratic import QuadraticModel, along
from pruning.data.batches import ArrayData
from pruning.job import Job


class Directions:
    """Products with the Hessian, as parts of trust ask for them.

    A direction that one part announces is taken along with the next batch of another's, whose pass
    over the data and gradient it shares.

    Args:
        job: The module is at the dense weights.
        data: Samples.
    """

    def __init__(self, job: Job, data: ArrayData) -> None:
        self._job, self._data = job, data
        self._announced: Tensor | None = None
        self._known: tuple[Tensor, QuadraticModel] | None = None

    def announce(self, direction: Tensor) -> None:
        """Says that a direction, shape [W], will be asked for by itself."""
        self._announced = direction

    def along(self, vectors: Tensor) -> QuadraticModel:
        """The model along directions, shape [k, W].

        Raises:
            SecateurError: As `quadratic.along`.
        """
        if self._known is not None and torch.equal(self._known[0], vectors):
            return self._known[1]
        coming, self._announced = self._announced, None
        if coming is None or torch.equal(coming[None], vectors):
            return along(self._job.network(), self._data, self._job.loss, vectors)
        model = along(
            self._job.network(), self._data, self._job.loss, torch.cat([vectors, coming[None]])
        )
        own = QuadraticModel(model.gradient, model.products[-1:], model.matrix)
        self._known = coming[None], own
        return QuadraticModel(model.gradient, model.products[:-1], model.matrix)
