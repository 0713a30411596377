"""What the report says of predictions and of how far they can be trusted, in words."""

from pruning.report.schema import Report
from pruning.report.trust import Ladder, Part, Rung
from pruning.report.words import asked_share, count, number, ratio, several, share


def ladder(found: Ladder) -> list[str]:
    """How far the quadratic model and the criterion's own prediction reach, one sentence each."""
    sentences = [
        f"Nothing is predicted. {found.not_predicted}"
        if found.not_predicted
        else _reach(
            "The quadratic model",
            found.rungs,
            found.holds_up_to,
            "predicted",
            f"within a factor of {found.factor:g} of the measured increase",
            found.resolution,
        )
    ]
    if found.own_holds_up_to is not None:
        sentences.append(
            _reach(
                "The criterion's own prediction",
                found.rungs,
                found.own_holds_up_to,
                "own",
                f"within {asked_share(found.own_factor - 1)} of the measured increase",
                found.resolution,
            )
        )
    return list(dict.fromkeys(sentences))  # both may be too small to judge by


def rungs(report: Report) -> str:
    """What a rung of the ladder is."""
    trust, spec = report.trust, report.spec
    if trust is None or trust.ladder is None:
        return ""
    greedy = spec.schedule.kind == "one_by_one" and spec.criterion.kind == "obs"
    how = (
        "one weight at a time, always the cheapest one left, with the others adjusted each time"
        if greedy
        else "in one step, with the criterion's scores and compensation"
    )
    text = (
        f"Each rung of the ladder prunes the dense network to its sparsity {how}, and measures on "
        f"{several(trust.ladder.samples, 'calibration sample')}."
    )
    steps = len(report.rounds)
    more = f" The job itself took {count(steps)} steps, each from the weights reached so far."
    return text + (more if steps > 1 else "")


def _reach(
    who: str, rungs: list[Rung], up_to: float | None, field: str, how: str, resolution: float
) -> str:
    limit = up_to or 0.0
    beyond = [r for r in rungs if r.sparsity > limit]
    told = [r for r in rungs if r.sparsity <= limit and _tells(r, field, resolution)]
    if not beyond:
        if not told:
            return f"Up to {share(limit)} removed, the increases are too small to judge by."
        return f"{who} is {how} on every rung, up to {share(limit)} removed."
    first = beyond[0]
    miss = (
        f"at {share(first.sparsity)}, predicted {number(getattr(first, field))}, "
        f"measured {number(first.measured)}"
        if first.error is None
        else f"at {share(first.sparsity)}, nothing could be measured: {first.error}"
    )
    if limit > 0 and not told:
        return (
            f"Up to {share(limit)} removed, the increases are too small to judge by. On the "
            f"next rung {who[0].lower()}{who[1:]} is not {how} ({miss})."
        )
    if limit == 0:
        return f"{who} is not {how} on the first rung ({miss})."
    return f"{who} is {how} up to {share(limit)} removed. On the next rung it is not ({miss})."


def _tells(rung: Rung, field: str, resolution: float) -> bool:
    """Whether the prediction or the measurement is large enough to decide anything."""
    return max(abs(getattr(rung, field) or 0.0), abs(rung.measured or 0.0)) > resolution


def bootstrap(report: Report) -> str:
    """How many removals depend on which samples were drawn."""
    found = None if report.trust is None else report.trust.bootstrap
    if found is None:
        return ""
    if not found.resamples:
        return f"The bootstrap was left out: {found.reason}."
    part = f" ({share(found.coin_tosses / found.removed)} of them)" if found.removed else ""
    return (
        f"If {several(found.removed, 'weight')} were removed from the dense network in one step, "
        f"{count(found.coin_tosses)}{part} would depend on which samples were drawn: the "
        f"{several(found.batches, 'calibration batch', 'calibration batches')} were drawn again "
        f"{several(found.resamples, 'time')}, and each of these weights was removed in 25 to 75 % "
        "of the draws."
    )


PARTS: dict[Part, str] = {
    "gradient_and_inputs": "the gradient and the inputs of the layers",
    "ladder": "the ladder",
    "curvature_rank": "rank and condition of the curvature",
    "negative_curvature": "negative curvature",
    "bootstrap": "the bootstrap",
    "ladder_by_layer": "the ladder of each layer alone",
}


def left_out(report: Report) -> str:
    """What was not measured, so that trust does not take longer than the rest of the job."""
    parts = [] if report.trust is None else [PARTS[found.part] for found in report.trust.left_out]
    if not parts:
        return ""
    return (
        f"Not measured, since it would have taken longer than the rest of the job: "
        f"{', '.join(parts)}. With trust: {{budget: all}} in the spec everything is measured."
    )


def prediction(report: Report) -> str:
    """How the predicted increase of the loss compares with the measured one."""
    predicted, measured = report.loss.predicted_increase, report.loss.measured_increase
    if measured is not None and any(r.not_predicted for r in report.rounds):
        return (
            f"The removals {'raised' if measured > 0 else 'lowered'} the calibration loss by "
            f"{number(abs(measured))} in total; there is no prediction."
        )
    if predicted is None or measured is None:
        return "Predicted and measured increase can't be compared: one of them is not finite."
    text = (
        "Increase of the calibration loss by all removals: "
        f"predicted {number(predicted)}, measured {number(measured)}."
    )
    if measured <= 0:
        return text
    if predicted <= 0:
        return f"{text} The change was too large for a quadratic model."
    factor = measured / predicted
    if 0.5 <= factor <= 2:
        return f"{text} That is within a factor of two{_cancelled(report, measured)}."
    times = f"{ratio(factor)} times" if factor > 1 else f"{ratio(1 / factor)} times less than"
    return (
        f"{text} Measured is {times} predicted: the change was too large for a quadratic model. "
        "Its numbers still rank the weights, but do not forecast the cost."
    )


def _cancelled(report: Report, measured: float) -> str:
    """A remark where sums agree because single steps missed in both directions."""
    pairs = [(r.predicted_increase, r.measured_increase) for r in report.rounds]
    missed = sum(abs(p - m) for p, m in pairs if p is not None and m is not None)
    return ", though single steps missed by more and cancel" if missed > measured else ""


def matrix(report: Report) -> str:
    """The H of the quadratic model, in words."""
    if any(r.matrix == "gauss_newton" for r in report.rounds):
        return "undamped Gauss-Newton matrix, as this network has no second derivatives"
    return "undamped exact Hessian of the calibration loss"
