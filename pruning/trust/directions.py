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
        # The ladder may climb over it, where nothing makes up for what goes.
        same = (vectors == coming).all(1).nonzero()[:1, 0]
        at = int(same) if len(same) else len(vectors)
        wanted = vectors if len(same) else torch.cat([vectors, coming[None]])
        model = along(self._job.network(), self._data, self._job.loss, wanted)
        own = QuadraticModel(model.gradient, model.products[at : at + 1], model.matrix)
        self._known = coming[None], own
        return QuadraticModel(model.gradient, model.products[: len(vectors)], model.matrix)
