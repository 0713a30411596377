"""Whether a loss and its metrics can tell anything on a model's outputs. Torch-free.

What can't tell a good network from a bad one is refused; what can tell little, and is only
reported, warns. Shapes are known from a model's facts before anything runs, and from the outputs
themselves once it runs.
"""

from collections.abc import Mapping, Sequence

from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, ModelFacts
from pruning.report.schema import ReportWarning
from pruning.spec import Spec
from pruning.spec.agreement import Held, held_metrics

DOUBTFUL = "metric_doubtful"
"""Code of the warning for a metric or distance that tells little."""

MAP = 4
"""Axes from which on outputs are maps, whose classes lie along the axis after the samples."""

Shape = Sequence[int | str]


def class_axis(axes: int) -> int:
    """The axis of outputs with so many axes along which scores are compared.

    The last one, as in [samples, scores] and [samples, positions, scores]; of maps
    [samples, scores, height, width] the one after the samples.
    """
    return 1 if axes >= MAP else axes - 1


def scores(shape: Shape) -> int | str:
    """How many scores are compared in outputs of a shape, samples first; [n] is one a sample."""
    return 1 if len(shape) < 2 else shape[class_axis(len(shape))]


def alike(target: Shape, outputs: Shape) -> bool:
    """Whether targets can be compared with outputs number by number.

    Both samples first; sizes that are names fit any. One number a sample may be [n] or [n, 1].
    """
    if len(target) != len(outputs):
        shorter, longer = sorted((target, outputs), key=len)
        return len(shorter) == 1 and len(longer) == 2 and longer[1] == 1
    return all(
        a == b
        for a, b in zip(target[1:], outputs[1:], strict=True)
        if isinstance(a, int) and isinstance(b, int)
    )


def check_outputs(spec: Spec, shape: Shape) -> list[ReportWarning]:
    """Holds the objective to the shape of a model's outputs.

    Args:
        spec: What is asked for.
        shape: Of the outputs, samples first; sizes that are not fixed as their names.

    Returns:
        What is doubtful.

    Raises:
        SecateurError: `metric_meaningless` for a metric that is the same for any network,
            `target_invalid` for a distance of scores where there is one.
    """
    measured, held = spec.objective.measured, held_metrics(spec)
    one, found = all(size == 1 for size in shape[1:]), []
    if spec.objective.distance == "kl":
        if scores(shape) == 1 or (len(shape) >= MAP and shape[-1] == 1):
            raise too_few_scores(shape)
        if len(shape) >= MAP:
            message = (
                f"The model's outputs have {len(shape)} axes, and the distance kl takes the "
                "softmax along the last one, which for a map is its width and no axis of classes. "
                "The distance squared compares them number by number."
            )
            found.append(_doubt(message, "spec.objective.distance"))
    if "agreement" in measured:
        if scores(shape) == 1:
            raise _meaningless(
                "agreement compares which of several outputs is the largest, and the model puts "
                f"out one number where it would look: shape {_shown(shape)}. Any network would "
                "agree with it.",
                _place(held, "agreement"),
                "Leave agreement out; without labels cosine is measured for outputs of several "
                "numbers, and the distance of match_dense for any.",
            )
        if len(shape) >= MAP:
            message = (
                f"The model's outputs have {len(shape)} axes, and agreement takes them as maps "
                "with the scores along the axis after the samples: it is the share of places at "
                "which the same one is the largest. Where the scores lie along another axis it "
                "says little."
            )
            found.append(_doubt(message, "spec.objective.metrics"))
    if "cosine" in measured and one:
        if "cosine" in held:
            raise _meaningless(
                f"The model puts out one number a sample, shape {_shown(shape)}. The cosine of "
                "one number is its sign, so it can't hold a result to a drop.",
                _place(held, "cosine"),
                "Leave this limit out and set the sparsity; or give labels and hold accuracy.",
            )
        message = (
            "The model puts out one number a sample, and the cosine of one number is its sign: "
            "it says only for how many samples the sign stayed. Go by the loss, the mean squared "
            "distance to the dense outputs."
        )
        found.append(_doubt(message, "spec.objective.metrics"))
    return found


def check_classes(spec: Spec, classes: int | None, where: str) -> list[ReportWarning]:
    """Holds loss and accuracy to the labels they are measured on.

    Args:
        spec: What is asked for.
        classes: How many different labels there are; None where they are not counted.
        where: Place of the evaluation data.

    Raises:
        SecateurError: `metric_meaningless` where accuracy decides something and all labels are the
            same.
    """
    if classes != 1:
        return []
    if "accuracy" not in spec.objective.measured:
        message = (
            "All targets are the same: a network that always puts this out, whatever it sees, has "
            f"the least {spec.objective.loss}."
        )
        return [_doubt(message, where)]
    message = (
        "All labels that accuracy is measured on are the same: a network that always gives this "
        "answer, whatever it sees, is perfect."
    )
    held = held_metrics(spec).get("accuracy")
    if held is not None:
        raise _meaningless(
            message, held.place, f"Give evaluation data with several labels ({where})."
        )
    return [_doubt(message, where)]


def check_model(spec: Spec, model: ModelFacts) -> list[ReportWarning]:
    """`check_outputs` of an uploaded model, as far as its facts tell."""
    real = [o.shape for o in model.outputs if o.dtype.startswith(("float", "bfloat"))]
    if not real or not _samples_first(real[0], model.batch):
        return []
    return check_outputs(spec, real[0])


def check_labels(spec: Spec, data: dict[str, DatasetFacts]) -> None:
    """`check_classes` of uploaded data, as far as their facts tell: labels that are all 0.

    Raises:
        SecateurError: `metric_meaningless`.
    """
    role = "evaluation" if "evaluation" in data else "calibration"
    target = data[role].target
    if target is not None and target.classes == 1 and not target.ignored:
        check_classes(spec, 1, f"data.{role}.target")


def _samples_first(shape: list[int | str], batch: int | None) -> bool:
    """Whether the samples can only lie along the first axis."""
    if batch is not None:
        return [n for n, size in enumerate(shape) if size == batch] == [0]
    return not shape or isinstance(shape[0], str) or not any(isinstance(s, str) for s in shape)


def too_few_scores(shape: Shape) -> SecateurError:
    """The error for a distance between softmax outputs where there is one number to compare."""
    return SecateurError(
        "target_invalid",
        "The distance kl is between the softmax of scores, and needs two or more of them; the "
        f"model's outputs have shape {_shown(shape)}.",
        where="spec.objective.distance",
        hint="Use objective {loss: match_dense, distance: squared}.",
    )


def _place(held: Mapping[str, Held], metric: str) -> str | None:
    return held[metric].place if metric in held else None


def _meaningless(message: str, place: str | None, hint: str) -> SecateurError:
    where = f"spec.{place or 'objective.metrics'}"
    return SecateurError("metric_meaningless", message, where=where, hint=hint)


def _doubt(message: str, where: str) -> ReportWarning:
    return ReportWarning(code=DOUBTFUL, message=message, where=where)


def _shown(shape: Shape) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
