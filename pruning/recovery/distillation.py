"""The dense network as a teacher: soft targets, and outputs of layers inside."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from pruning.curvature.losses import (
    IGNORED,
    CausalLM,
    CrossEntropy,
    Loss,
    MatchDense,
    MatchDenseKL,
)
from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.recovery.objective import Autocast, Objective
from pruning.recovery.precision import full
from pruning.spec import Distill

SCALE_SAMPLES = 256
"""Training samples over which a feature's mean square is taken."""


def without_labels(loss: Loss) -> bool:
    """Whether the loss refers to the dense outputs alone."""
    return isinstance(loss, MatchDense | MatchDenseKL)


def needs_teacher(options: Distill, loss: Loss) -> bool:
    """Without labels the targets are the dense outputs, and only features ask for the network."""
    return bool(options.features) or not without_labels(loss)


def soft_targets(
    loss: Loss, outputs: Tensor, dense: Tensor, target: Tensor, temperature: float
) -> Tensor:
    """The distance of each sample's outputs to the dense ones, shape [N].

    For class scores T^2 KL(softmax(dense / T) || softmax(outputs / T)), whose gradient is T times
    the gap of the two distributions (Hinton, Vinyals, Dean 2015, eq. 2), at the mean over a
    sample's positions; those of causal_lm that have no label do not count. Else the mean square.

    Args:
        loss: Says what the outputs are.
        outputs: Of the network that is trained, [N, ...].
        dense: Of the teacher, the same shape.
        target: Labels, for the positions that they leave out.
        temperature: T.
    """
    if isinstance(loss, CausalLM):
        cold = dense[:, :-1].div(temperature).log_softmax(-1)
        warm = outputs[:, :-1].div(temperature).log_softmax(-1)
        gaps = (cold.exp() * (cold - warm)).sum(-1) * temperature**2
        counts = (target[:, 1:] != IGNORED).to(gaps.dtype)
        return (gaps * counts).sum(1) / counts.sum(1)
    if isinstance(loss, CrossEntropy | MatchDenseKL):
        divergence = MatchDenseKL().samples(outputs / temperature, dense / temperature)
        return divergence * temperature**2
    return MatchDense().samples(outputs, dense)


class Distilled(Objective):
    """weight * soft targets + (1 - weight) * labels + feature_weight * features.

    A feature is the mean square of the gap between a layer's outputs in both networks, over the
    mean square of the dense ones, which is taken once over the first training samples, so that a
    batch weighs what its samples weigh. Features average.

    Args:
        loss: Of the labels, or of the dense outputs where there are none.
        options: Weights, temperature and layers.
        teacher: The dense network in evaluation mode; None where `needs_teacher` says so.
        features: Names of the layers that `options.features` match.
    """

    def __init__(
        self,
        loss: Loss,
        options: Distill,
        teacher: nn.Module | None,
        features: tuple[str, ...] = (),
    ) -> None:
        super().__init__(loss)
        self.options, self.teacher, self.features = options, teacher, features
        self.weight = 1.0 if without_labels(loss) else options.weight
        self._seen: dict[str, list[Tensor]] = {}
        self._dense: dict[str, list[Tensor]] = {}
        self._scale: dict[str, float] = {}

    @contextmanager
    def watching(self, module: nn.Module, data: ArrayData) -> Iterator[None]:
        """Sees the layers of the module and of the teacher meanwhile."""
        with ExitStack() as stack:
            if self.teacher is not None and self.features:
                for network, seen in ((self.teacher, self._dense), (module, self._seen)):
                    stack.enter_context(_hooked(network, self.features, seen))
                self._measure(data)
            yield

    @torch.no_grad()
    def _measure(self, data: ArrayData) -> None:
        assert self.teacher is not None
        few = data.select(slice(0, SCALE_SAMPLES))
        device = next(self.teacher.parameters()).device
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for inputs, _ in few.batches(64, device=device):
            self._clear()
            self.teacher(*inputs)
            for name, calls in self._dense.items():
                sums[name] = sums.get(name, 0.0) + sum(
                    float(t.double().square().sum()) for t in calls
                )
                counts[name] = counts.get(name, 0) + sum(t.numel() for t in calls)
        missing = [name for name in self.features if name not in sums]
        if missing:
            raise SecateurError(
                "spec_conflict",
                f"The network takes the weights of {', '.join(missing)} without calling the layer, "
                "which has no outputs of its own to compare.",
                where="spec.recovery.distill.features",
                hint="Name the layer around it or one after it.",
            )
        # A layer that is zero on all of them is compared by the plain square.
        self._scale = {k: (sums[k] / counts[k]) or 1.0 for k in sums}
        self._clear()

    def value(
        self,
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        target: Tensor | None,
        autocast: Autocast,
        *,
        check: bool,
    ) -> Tensor:
        """See `Objective.value`."""
        self._clear()
        try:
            return super().value(module, inputs, target, autocast, check=check)
        finally:
            self._clear()

    def of(
        self, outputs: Tensor, target: Tensor, inputs: tuple[Tensor, ...], autocast: Autocast
    ) -> Tensor:
        """See `Objective.of`."""
        dense = target
        if self.teacher is not None:
            with torch.no_grad(), autocast():
                dense = full(first_output(self.teacher(*inputs)))
        total = outputs.new_zeros(())
        if self.weight > 0.0:
            soft = soft_targets(self.loss, outputs, dense, target, self.options.temperature)
            total = total + self.weight * soft.mean()
        if self.weight < 1.0:
            total = total + (1.0 - self.weight) * super().of(outputs, target, inputs, autocast)
        if self._seen:
            gaps = [self._gap(name) for name in self._seen]
            total = total + self.options.feature_weight * sum(gaps) / len(gaps)
        return total

    def _gap(self, name: str) -> Tensor:
        pairs = list(zip(self._seen[name], self._dense[name], strict=True))
        squares = [(full(a) - full(b)).square().sum() for a, b in pairs]
        return torch.stack(squares).sum() / (sum(a.numel() for a, _ in pairs) * self._scale[name])

    def _clear(self) -> None:
        self._seen.clear()
        self._dense.clear()


@contextmanager
def _hooked(
    network: nn.Module, layers: tuple[str, ...], seen: dict[str, list[Tensor]]
) -> Iterator[None]:
    """Puts the outputs of layers into `seen`, one for each call."""
    with ExitStack() as stack:
        for name in layers:

            def see(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                seen.setdefault(name, []).append(first_output(output))

            stack.callback(network.get_submodule(name).register_forward_hook(see).remove)
        yield
