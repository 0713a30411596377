"""In how many steps the weights go."""

from typing import Annotated, Literal

from pydantic import Field

from pruning.spec.objective import Metric
from pruning.spec.part import Part


class OneShot(Part):
    """Down to the target without recovery in between.

    `recomputations`: the weights are scored this many times on the way, each time at the weights
    reached so far, with the same share of the survivors removed every time. `auto` is 4 where new
    scores help, as with curvature or gradients, and 1 for magnitude, random, wanda and layer_obs,
    compensation layerwise and pattern nm.
    """

    kind: Literal["one_shot"] = "one_shot"
    recomputations: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = "auto"


class RewindWeights(Part):
    """Lottery-ticket rewinding: training starts again from an earlier checkpoint in every round.

    The survivors, and all that is not pruned, are set back to the checkpoint that the job names as
    `rewind_to` (Frankle et al. 2020), which was taken at `epoch` of the training that recovery
    describes: its rates are those of all of `recovery.epochs`, entered there.
    """

    kind: Literal["weights"] = "weights"
    epoch: int = Field(0, ge=0, le=1_000)


class RewindRates(Part):
    """Learning-rate rewinding: the weights stay, the rates alone go back (Renda et al. 2020).

    Recovery's rates are those of all of `recovery.epochs`, entered at `epoch`.
    """

    kind: Literal["learning_rate"] = "learning_rate"
    epoch: int = Field(0, ge=0, le=1_000)


class Stop(Part):
    """Ends the rounds early: the last one before `metric` dropped by more than `drop` is delivered.

    Measured on the evaluation data after recovery, against the dense network.
    """

    metric: Metric = "accuracy"
    drop: float = Field(0.01, ge=0.0, le=1.0)


class Rounds(Part):
    """Rounds of prune and recover; `curve` is the sparsity over the rounds.

    `recomputations`: the curvature is computed this many times inside a round, each at the weights
    reached so far.
    """

    kind: Literal["rounds"] = "rounds"
    rounds: int = Field(5, ge=1, le=100)
    curve: Literal["cubic", "linear", "geometric"] = "cubic"
    recomputations: int = Field(1, ge=1, le=64)
    rewind: Annotated[RewindWeights | RewindRates, Field(discriminator="kind")] | None = None
    stop: Stop | None = None


class AtInitialisation(Part):
    """Pruning before training: weights go at initialisation, then the survivors are trained.

    The initialisation is the checkpoint that the job names as `rewind_to`, and the uploaded model
    is then the trained network it is compared with; without one, the upload itself.

    `iterations`: the weights go in so many steps, the same share of the survivors each, scored anew
    (Tanaka et al. 2020 take 100 for synflow).
    """

    kind: Literal["at_initialisation"] = "at_initialisation"
    iterations: int = Field(1, ge=1, le=1_000)


class Proximal(Part):
    """Soft pruning: training draws weights towards zero, then a hard mask takes the target's share.

    The training is that of `recovery` (fine_tune), for `epochs` of its own; recovery proper follows
    the mask.

    Args:
        method: `proximal` soft-thresholds the weights in scope after each step of the optimizer,
            by rate times penalty (Parikh and Boyd 2014, 4.3); `l1` adds the subgradient of
            penalty times their absolute sum.
        penalty: Strength, in units of the loss by weight.
        epochs: Of soft pruning.
        warmup: Share of these epochs over which the penalty grows linearly from zero.
    """

    kind: Literal["proximal"] = "proximal"
    method: Literal["proximal", "l1"] = "proximal"
    penalty: float = Field(1e-4, gt=0.0, allow_inf_nan=False)
    epochs: int = Field(5, ge=1, le=1_000)
    warmup: float = Field(0.0, ge=0.0, le=1.0)


class OneByOne(Part):
    """One weight at a time, each the one that costs least then; for small networks.

    `recompute`: the curvature is computed again after so many deletions, 1 for each of them. In
    between, criterion obs downdates its inverse and moves the survivors after every deletion.
    """

    kind: Literal["one_by_one"] = "one_by_one"
    recompute: int = Field(16, ge=1, le=4_096)
