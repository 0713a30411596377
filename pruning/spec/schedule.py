"""In how many steps the weights go."""

from typing import Literal

from pydantic import Field

from pruning.spec.part import Part


class OneShot(Part):
    """Down to the target without recovery in between.

    `recomputations`: the curvature is computed this many times on the way, each at the weights
    reached so far, with the same share of the survivors removed every time.
    """

    kind: Literal["one_shot"] = "one_shot"
    recomputations: int = Field(4, ge=1, le=64)


class Rounds(Part):
    """Rounds of prune and recover; `curve` is the sparsity over the rounds."""

    kind: Literal["rounds"] = "rounds"
    rounds: int = Field(5, ge=1, le=100)
    curve: Literal["cubic", "linear", "geometric"] = "cubic"


class OneByOne(Part):
    """One weight at a time, each the one that costs least then; for small networks.

    `recompute`: the curvature is computed again after so many deletions, 1 for each of them. In
    between, criterion obs downdates its inverse and moves the survivors after every deletion.
    """

    kind: Literal["one_by_one"] = "one_by_one"
    recompute: int = Field(16, ge=1, le=4_096)
