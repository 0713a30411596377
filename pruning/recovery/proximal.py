"""Soft pruning: a training that draws the weights in scope towards zero, before any mask."""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer

from pruning.recovery.early_stop import split
from pruning.recovery.fine_tune import recover, round_seed, split_seed
from pruning.recovery.masking import Masking
from pruning.recovery.setting import At, Saved, Setting
from pruning.recovery.teacher import features_of, teacher_of
from pruning.spec import FineTune
from pruning.spec.schedule import Proximal

if TYPE_CHECKING:
    from pruning.job import Job, State


class Shrinking:
    """A penalty on the absolute sum of some weights.

    `proximal` takes, after the optimizer's step of rate r, the proximal operator of r p |w|:
    sign(w) max(|w| - r p, 0) (Parikh and Boyd 2014, 4.3 and 6.5.2). `l1` adds the subgradient
    p sign(w) to the gradient. p grows linearly from zero over the warm-up.

    Args:
        weights: The weights in scope.
        schedule: The spec's part.
        masking: Weights that are zero and stay so meanwhile; none without it.
    """

    def __init__(
        self, weights: list[nn.Parameter], schedule: Proximal, masking: Masking | None = None
    ) -> None:
        self.weights_in_scope, self.schedule = weights, schedule
        self.masking = Masking(()) if masking is None else masking

    def penalty(self, at: At) -> float:
        """The factor p in one step."""
        warm = self.schedule.warmup * at.total
        return self.schedule.penalty * (min(1.0, at.step / warm) if warm > 0 else 1.0)

    def begin(self) -> None:
        """Set what is held to +0.0."""
        self.masking.begin()

    @torch.no_grad()
    def gradients(self, at: At) -> None:
        """Add the subgradient, but for what is held."""
        if self.schedule.method == "l1":
            for weight in self.weights_in_scope:
                if weight.grad is not None:
                    weight.grad.add_(weight.sign(), alpha=self.penalty(at))
        self.masking.gradients(at)

    @torch.no_grad()
    def stepped(self, at: At) -> None:
        """Take the proximal operator."""
        if self.schedule.method == "proximal":
            threshold = at.rate * self.penalty(at)
            for weight in self.weights_in_scope:
                weight.copy_(nn.functional.softshrink(weight, threshold))

    def end(self, optimizer: Optimizer) -> None:
        """Make sure that what is held is zero."""
        self.masking.end(optimizer)


def soften(job: "Job", state: "State", schedule: Proximal, saved: Saved | None = None) -> None:
    """Train all weights under the penalty, as the spec's recovery says but for its epochs.

    Every epoch counts, so it does not end early; what recovery holds out to end early by is left
    out here too. No weight is masked but the zeros of the upload; others in scope that reach zero
    may leave it again.

    Args:
        job: At the dense weights.
        state: Before the first step.
        schedule: The spec's part.
        saved: Where the training is kept between epochs.

    Raises:
        SecateurError: What `train` raises.
    """
    options = job.spec.recovery
    assert isinstance(options, FineTune)
    data, seed = job.data.training, job.spec.seed
    if options.early_stop is not None:
        data = data.select(split(data, options.early_stop.share, split_seed(seed))[0])
    options = options.model_copy(update={"epochs": schedule.epochs, "early_stop": None})
    setting = Setting(
        job.module,
        data,
        job.loss,
        Shrinking([p.weight for p in job.weights.layers], schedule, job.masking(state.kept)),
        round_seed(seed, len(state.rounds)),
        teacher=teacher_of(job),
        features=features_of(job),
        saved=saved,
        progress=lambda done, total: job.narrator.progress(done, total, "soft pruning", whole=True),
    )
    recover(setting, options)
