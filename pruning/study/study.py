"""What a job does as a whole: its run, or the search for it; the curve; the comparison."""

from dataclasses import dataclass, field
from pathlib import Path

from pruning.job import Job
from pruning.report.numbers import share
from pruning.report.study import Comparison, Search
from pruning.schedule.step import removal_count
from pruning.study.compare import compare
from pruning.study.labels import point
from pruning.study.probing import find
from pruning.study.rivals import rivals
from pruning.study.runs import Run, Runs


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

    Raises:
        SecateurError: `target_unreachable` where no sparsity has an allowed drop, or what a run
            raises.
    """
    spec = job.spec
    searched = spec.target.max_drop is not None
    several = searched or bool(spec.curve.points or rivals(spec))
    # What a comparison alone could share is not worth the memory through the job's recovery.
    job.dense.shares = searched or bool(spec.curve.points)
    runs = Runs(job, folder, several=several)
    found = find(runs) if searched else None
    answer = runs.main() if found is None else found.answer
    points = [("probe", run) for run in found.probes] if found else []
    points += [("curve", run) for run in _curve(runs, [answer, *(run for _, run in points)])]
    if found is not None:
        answer = runs.assessed(answer)
    comparison = compare(runs, answer)
    if runs.several:
        runs.show(answer)
    job.dense.forget()
    if found is None:
        return Study(runs, answer, points, comparison=comparison)
    return Study(runs, answer, points, found.accepted, found.search, comparison)


def _curve(runs: Runs, done: list[Run]) -> list[Run]:
    """The further sparsities that are asked for, without those where the job has been."""
    spec, total = runs.job.spec, len(runs.job.weights)
    # Rounds that stopped, and budgets that a count was not enough for, end at other networks.
    planned = {
        run.job.target for run in done if run.state.stopped is None and run.job.budget is None
    }
    wanted: dict[int, float] = {}
    for s in spec.curve.points:
        # Points with no more zeros than there are already are one network.
        removed = max(runs.job.existing.removed, removal_count(s, total, spec.pattern.unit))
        if removed not in planned:
            wanted.setdefault(removed, s)
    made = []
    for number, sparsity in enumerate(wanted.values()):
        message = f"point {number + 1} of {len(wanted)}: {share(sparsity)}"
        with runs.job.narrator.about(message, number, len(wanted)):
            made.append(runs.at(point(sparsity), sparsity))
    return made
