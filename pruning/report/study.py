"""Parts of report.json on more than one run of the schedule, and on the file in use. Torch-free."""

from typing import Literal

from pydantic import Field

from pruning.report.section import Number, Section
from pruning.report.trust import Check


class Drop(Section):
    """How far a metric fell, by pairs: the same samples through the dense and the final network."""

    value: Number = Field(description="Dense minus final; negative where it rose.")
    low: Number = Field(description="Lower end of the interval.")
    high: Number = Field(description="Upper end.")
    level: float = Field(default=0.95, description="Coverage of the interval.")
    simultaneous: int = Field(
        default=1,
        description="Looks at the same samples for which the interval holds at once (Bonferroni): "
        "the most probes of a search, the rounds of a schedule that may stop early, else 1.",
    )
    samples: int = Field(description="Pairs.")


class Point(Section):
    """One sparsity that the job went to: the schedule and recovery from the dense network."""

    sparsity: float = Field(description="Share of the weights in scope that is gone.")
    removed: int = Field(description="Positions masked, exactly.")
    loss: Number = Field(description="Calibration loss at the end.")
    metrics: dict[str, Number] = Field(default={}, description="On the evaluation data.")
    drops: dict[str, Drop] = Field(default={}, description="Against the dense network.")
    bytes: int | None = Field(
        default=None,
        description="Of the sparse file; the most it would take where no file was kept.",
    )
    multiply_adds: int | None = Field(
        default=None, description="A sample, layers in scope, zeros left out; null if not known."
    )
    source: Literal["target", "probe", "curve"] = Field(
        description="The delivered result, a probe of the search, or asked for as curve.points."
    )
    allowed: bool | None = Field(
        default=None, description="Whether the search accepted it; null without a search."
    )
    delivered: bool = Field(default=False, description="Whether it is the job's main result.")
    artifact: str | None = Field(
        default=None, description="The file with this point's model; null where none was kept."
    )


class Budget(Section):
    """A target in bytes or multiply-adds, in numbers."""

    kind: Literal["bytes", "flops"] = Field(
        description="bytes of the sparse file; flops: multiply-adds a sample of the layers in "
        "scope, zeros left out."
    )
    limit: int = Field(
        description="The most that may remain: as asked for, or the share asked for of the bytes "
        "of all weights, or of the multiply-adds without zeros."
    )
    remaining: int = Field(
        description="What remains, as counted from the weights that stay; of bytes an upper bound, "
        "the size of the file itself is `sizes.sparse_bytes`."
    )


class Search(Section):
    """How `target: max_drop` found its answer."""

    metric: str = Field(description="The metric held.")
    allowed: float = Field(description="The largest drop allowed.")
    judged_by: Literal["estimate", "upper_bound"] = Field(description="What was held to it.")
    probes: int = Field(description="Runs of the schedule.")
    low: float = Field(description="The largest sparsity that was accepted; 0 if none was.")
    high: Number = Field(description="The smallest one refused; null if none was.")
    ended: Literal["resolution", "probes", "all_allowed", "none_allowed"] = Field(
        description="Why the search ended."
    )


class Stopped(Section):
    """Rounds that ended early by `schedule.stop`."""

    round: int = Field(description="The last round that was kept; 0 if none was.")
    rounds: int = Field(description="Rounds planned.")
    metric: str = Field(description="The metric held.")
    drop: Number = Field(description="Its drop in the round after, which was undone.")
    allowed: float = Field(description="The largest drop allowed.")


class ComparedRun(Section):
    """One criterion, one seed."""

    seed: int = Field(description="The seed.")
    recovered: bool = Field(description="With the job's schedule and recovery, or one shot alone.")
    loss: Number = Field(description="Calibration loss at the end; null if the run failed.")
    metrics: dict[str, Number] = Field(default={}, description="On the evaluation data.")
    error: str | None = Field(default=None, description="Why the run failed.")


class Compared(Section):
    """One criterion's runs."""

    criterion: str = Field(
        description="Its kind, and its parameters where several of one kind were compared."
    )
    own: bool = Field(description="Whether it is the job's.")
    allocation: str = Field(default="", description="How sparsity was shared among layers.")
    compensation: str = Field(default="", description="What was done for the survivors.")
    runs: list[ComparedRun] = Field(description="Over seeds, without recovery first.")


class Difference(Section):
    """The job's criterion against another, over seeds or pairs of evaluation samples."""

    against: str = Field(description="The other criterion.")
    recovered: bool = Field(description="With or without recovery.")
    quantity: str = Field(description="A metric, or loss.")
    value: Number = Field(
        description="Median advantage of the job's own: above zero it was better."
    )
    low: Number = Field(description="Lower end of its 95 % interval; null where there is none.")
    high: Number = Field(description="Upper end.")
    verdict: Literal["better", "as_good", "worse", "unknown"] = Field(
        description="Of the job's own criterion; as_good where the interval holds zero."
    )
    message: str = Field(description="Plain words.")


class Comparison(Section):
    """Criteria at the same sparsity, on the same data."""

    sparsity: float = Field(description="At which all were compared.")
    criteria: list[Compared] = Field(description="The job's own first.")
    differences: list[Difference] = Field(description="The job's own against each other one.")


class Times(Section):
    """Seconds of one batch."""

    median: Number = Field(description="Median.")
    q25: Number = Field(description="First quartile.")
    q75: Number = Field(description="Third quartile.")
    low: Number = Field(
        default=None,
        description="Lower end of the median's 95 % interval; null for fewer than 6 turns.",
    )
    high: Number = Field(default=None, description="Upper end.")


class Latency(Section):
    """The delivered file against the upload, in turns, in the process that verified it."""

    engine: str = Field(description="onnxruntime or torch.")
    threads: int = Field(description="Threads of one operation.")
    batch: int = Field(description="Samples a run.")
    runs: int = Field(
        description="Runs of each, in turns of four: one file, the other twice, the first again."
    )
    dense: Times = Field(description="The upload.")
    pruned: Times = Field(description="The delivered file.")
    ratio: Number = Field(description="Median over turns of four of delivered by upload.")
    ratio_low: Number = Field(
        description="Lower end of the 95 % interval of that median, by order alone; null for fewer "
        "than 6 turns."
    )
    ratio_high: Number = Field(description="Upper end.")
    pairs: int | None = Field(default=None, description="Turns of four; each gives one ratio.")
    seconds: Number = Field(default=None, description="Time that the measurement took.")
    message: str = Field(description="What it means, in plain words.")
    gate: Check | None = Field(default=None, description="The gate on it; null without one.")
