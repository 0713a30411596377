"""What a job does as a whole: its run, or the search for it; the curve; the comparison."""

from dataclasses import dataclass, field
from pathlib import Path

from pruning.job import Job
from pruning.report.study import Comparison, Search
from pruning.runs import Run, Runs


@dataclass(frozen=True)
class Study:
    """Everything that was run.

    Args:
        runs: To put the weights of any of them into the module.
        answer: The run that is delivered; the module holds its weights.
        points: The others of the curve, by where they come from: `probe` or `curve`.
        accepted: Labels of the probes that the search accepted.
        search: How the answer was found; None without a search.
        comparison: Criteria at the answer's sparsity; None where none were compared.
    """

    runs: Runs
    answer: Run
    points: list[tuple[str, Run]] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    search: Search | None = None
    comparison: Comparison | None = None


def study(job: Job, folder: Path | None) -> Study:
    """Do all that the spec asks for; the module ends at the delivered weights.

    Args:
        job: At the dense weights.
        folder: Of the checkpoints.
    """
    runs = Runs(job, folder, several=bool(job.spec.curve.points))
    answer = runs.main()
    points = [("curve", runs.at(f"at-{s:g}", s)) for s in job.spec.curve.points]
    if runs.several:
        runs.show(answer)
    return Study(runs, answer, points)
