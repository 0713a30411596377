"""What the result is compared with at the same sparsity."""

from pydantic import Field

from pruning.catalogue.criteria.magnitude import Magnitude
from pruning.spec.methods import Criterion
from pruning.spec.part import Part


class Comparison(Part):
    """Other criteria at the same sparsity, on the same data, beside the job's own.

    Args:
        criteria: Which; the job's own need not be named. None are compared where this is empty.
        seeds: Runs of each criterion, with the seeds `seed`, `seed` + 1 and so on: they draw the
            calibration samples again (with replacement) and the order of recovery.
        recovered: Whether each run goes through the job's schedule and recovery too, beside one
            without recovery.
    """

    criteria: tuple[Criterion, ...] = (Magnitude(),)
    seeds: int = Field(1, ge=1, le=100)
    recovered: bool = False
