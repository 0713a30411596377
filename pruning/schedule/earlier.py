"""The earlier checkpoint that a schedule goes back to or starts from. Torch-free."""

from pruning.errors import SecateurError
from pruning.facts import ModelFacts
from pruning.spec import AtInitialisation, Rounds, Spec

WHERE = "rewind_to"


def goes_back(spec: Spec) -> bool:
    """Whether the schedule takes the earlier checkpoint's weights after its removals."""
    rewind = spec.schedule.rewind if isinstance(spec.schedule, Rounds) else None
    return rewind is not None and rewind.kind == "weights"


def start_epoch(spec: Spec) -> int:
    """The epoch of `recovery.epochs` at which each recovery enters its rates."""
    rewind = spec.schedule.rewind if isinstance(spec.schedule, Rounds) else None
    return 0 if rewind is None else rewind.epoch


def check_use(spec: Spec, given: bool) -> None:
    """Refuses a schedule without the checkpoint it needs, and a checkpoint it does not use.

    Args:
        spec: What is asked for.
        given: Whether the job names an earlier checkpoint.

    Raises:
        SecateurError: `rewind_invalid`.
    """
    if goes_back(spec) and not given:
        raise SecateurError(
            "rewind_invalid",
            "schedule.rewind takes the weights back to an earlier checkpoint, and none was given.",
            where=WHERE,
            hint="Give an earlier checkpoint of the same network as rewind_to, or set "
            "schedule.rewind to {kind: learning_rate}, which needs none.",
        )
    if given and not goes_back(spec) and not isinstance(spec.schedule, AtInitialisation):
        raise SecateurError(
            "rewind_invalid",
            f"An earlier checkpoint was given, and schedule {spec.schedule.kind} does not use it.",
            where=WHERE,
            hint="Leave rewind_to out, or use schedule {kind: rounds, rewind: {kind: weights}} or "
            "{kind: at_initialisation}.",
        )


def check_facts(model: ModelFacts, earlier: ModelFacts) -> None:
    """Refuses a checkpoint of another network: format, names and shapes of the layers, size.

    Raises:
        SecateurError: `rewind_invalid`, naming what differs.
    """
    if model.format != earlier.format:
        raise _other(f"is {earlier.format}, the model {model.format}")
    ours = {layer.name: layer.shape for layer in model.layers}
    theirs = {layer.name: layer.shape for layer in earlier.layers}
    for name, shape in ours.items():
        if name not in theirs:
            raise _other(f"has no layer {name}", name)
        if theirs[name] != shape:
            raise _other(f"has the shape {theirs[name]} for layer {name}, the model {shape}", name)
    for name in theirs:
        if name not in ours:
            raise _other(f"has a layer {name}, which the model lacks", name)
    if model.parameters != earlier.parameters:
        raise _other(f"has {earlier.parameters} parameters, the model {model.parameters}")


def _other(what: str, name: str | None = None) -> SecateurError:
    return SecateurError(
        "rewind_invalid",
        f"The earlier checkpoint {what}.",
        where=WHERE if name is None else f"{WHERE}.{name}",
        hint="Give a checkpoint of the same network, exported in the same way.",
    )
