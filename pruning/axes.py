"""Which axis of each input holds the samples: what names and sizes allow, best first. Torch-free.

A reading gives every input an axis, or `shared` where all samples have one value. Names of sizes
decide where one of them is that of a batch; else the readings that are left are tried in turn by
whoever can run the network (`pruning.formats.trial`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pruning.errors import SecateurError
from pruning.facts import ModelFacts, SampleAxis, TensorFact
from pruning.near_miss import near_miss

_BATCH = re.compile(r"batch|^(n|b|bs|bsz|nb)$")
_OTHER = re.compile(
    r"seq|time|step|len|token|frame|width|height|audio|chunk|position|word|char|feature|channel"
    r"|class|hidden|dim_?size|^(t|l|s|h|w|d|c)$"
)

Declared = Mapping[str, int | Literal["shared"]]
"""The axis of the samples by input, as a user declared it."""


@dataclass(frozen=True)
class Reading:
    """One way to read the inputs, in their order; `told`: by a name or by the user."""

    axes: tuple[SampleAxis, ...]
    told: bool = False

    def of(self, inputs: Iterable[TensorFact]) -> list[TensorFact]:
        """The inputs so read."""
        pairs = zip(inputs, self.axes, strict=True)
        return [fact.model_copy(update={"samples": axis}) for fact, axis in pairs]


def readings(inputs: Sequence[TensorFact], declared: Declared | None = None) -> list[Reading]:
    """The ways to read the inputs that come into question, best first; one where it is told.

    Args:
        inputs: Names and shapes.
        declared: What the user says of some or all of them.

    Raises:
        SecateurError: `spec_invalid` for a declaration that does not fit the inputs,
            `sample_axis_unknown` where all inputs are single values.
    """
    if inputs and not any(fact.shape for fact in inputs):
        raise SecateurError(
            "sample_axis_unknown",
            "The model has no batch axis: its inputs are single values, "
            f"{', '.join(repr(fact.name) for fact in inputs[:10])}.",
            where=inputs[0].name,
            hint="Export it with an axis of samples in an input.",
        )
    if declared:
        return [Reading(_declared(inputs, declared), told=True)]
    named = _by_name(inputs)
    if named is not None:
        return [Reading(named, told=True)]
    found: list[tuple[SampleAxis, ...]] = []
    for first, axis in _origins(inputs):
        axes = _following(inputs, first, axis)
        if axes not in found:
            found.append(axes)
    return [Reading(axes) for axes in found] or [Reading(tuple(_plain(f) for f in inputs))]


def parse_declared(options: Iterable[str], where: str) -> dict[str, int | Literal["shared"]]:
    """What `input=axis` and `input=shared` say, as options of a command or an upload.

    Args:
        options: One for each input.
        where: The option's name.

    Raises:
        SecateurError: `invalid_request`.
    """
    found: dict[str, int | Literal["shared"]] = {}
    for option in options:
        name, _, axis = option.rpartition("=")
        if not name or not (axis == "shared" or (axis.isascii() and axis.isdigit())):
            raise SecateurError(
                "invalid_request",
                f"{option[:80]!r} does not say which axis of which input holds the samples.",
                where=where,
                hint="Write INPUT=AXIS, axes counted from 0, or INPUT=shared for a value that all "
                "samples have in common.",
            )
        found[name] = "shared" if axis == "shared" else int(axis)
    return found


def as_inputs(declared: Mapping[str, SampleAxis]) -> dict[str, Any]:
    """A declaration as `inputs` of a spec has it."""
    return {name: {"samples": axis} for name, axis in declared.items()}


def declared_facts(model: ModelFacts, declared: Declared) -> ModelFacts:
    """The facts of a model with its inputs read as declared, and nothing left to be told.

    Args:
        model: What intake learned.
        declared: What the spec says of inputs.

    Raises:
        SecateurError: `spec_invalid` for a declaration that does not fit, `sample_axis_unknown`
            where one is needed.
    """
    inputs = model.inputs
    if declared and inputs:
        inputs = readings(inputs, declared)[0].of(inputs)
    if (lost := unknown(inputs)) is not None:
        raise lost
    if inputs == model.inputs:
        return model
    counts = [fact.count for fact in inputs if fact.axis is not None]
    outputs = [
        fact.model_copy(update={"samples": axis})
        for fact in model.outputs
        for axis in [next((a for a, size in enumerate(fact.shape) if size in counts), 0)]
    ]
    fixed = next((size for size in counts if isinstance(size, int)), None)
    return model.model_copy(update={"inputs": inputs, "outputs": outputs, "batch": fixed})


def check_declared(inputs: Sequence[TensorFact], declared: Declared) -> None:
    """Refuses a declaration that does not fit the inputs.

    Raises:
        SecateurError: `spec_invalid` for an input or an axis that there is not, or where nothing
            would hold samples.
    """
    names = [fact.name for fact in inputs]
    for name, axis in declared.items():
        if name not in names:
            near = near_miss(name, names)
            meant = "" if near is None else f" Did you mean {near!r}?"
            raise SecateurError(
                "spec_invalid",
                f"The model has no input {name!r}.{meant}",
                where=f"spec.inputs.{name}",
                hint=f"Its inputs are {', '.join(map(repr, names[:10]))}.",
            )
        rank = len(inputs[names.index(name)].shape)
        if axis != "shared" and axis >= rank:
            shape = inputs[names.index(name)].shape
            raise SecateurError(
                "spec_invalid",
                f"The input {name!r} has {rank} axes, [{', '.join(map(str, shape))}], and samples "
                f"is {axis}.",
                where=f"spec.inputs.{name}.samples",
                hint="Axes count from 0; `shared` is for a value that all samples have in common.",
            )


def unknown(inputs: Sequence[TensorFact]) -> SecateurError | None:
    """What to say where the axis of the samples could not be found out; None where it was."""
    lost = [fact for fact in inputs if fact.samples == "unknown"]
    if not lost:
        return None
    listed = ", ".join(f"{f.name!r} [{', '.join(map(str, f.shape))}]" for f in lost[:10])
    name = lost[0].name
    return SecateurError(
        "sample_axis_unknown",
        f"Which axis holds the samples can't be told for {listed}: along every axis that was "
        "tried, what one sample gave changed with the other samples of the batch.",
        where=f"spec.inputs.{name}",
        hint=f"Declare it in the spec, inputs: {{{name}: {{samples: 1}}}} for the second axis, or "
        f"upload with --samples {name}=1. Data have the samples first in any case. A network that "
        "compares the samples of a batch runs with samples: 0 declared, and the report warns.",
    )


def _declared(inputs: Sequence[TensorFact], declared: Declared) -> tuple[SampleAxis, ...]:
    check_declared(inputs, declared)
    origin = next((f for f in inputs if isinstance(declared.get(f.name), int)), None)
    if origin is None:
        guessed = _by_name(inputs) or tuple(_plain(f) for f in inputs)
    else:
        guessed = _following(inputs, inputs.index(origin), int(declared[origin.name]))
    axes = tuple(declared.get(f.name, g) for f, g in zip(inputs, guessed, strict=True))
    if all(axis == "shared" for axis in axes):
        raise SecateurError(
            "spec_invalid",
            "Every input is declared as shared by all samples; one has to hold them.",
            where="spec.inputs",
        )
    sizes = {
        size: fact.name
        for fact, axis in zip(inputs, axes, strict=True)
        if axis != "shared" and isinstance(size := fact.shape[int(axis)], int)
    }
    if len(sizes) > 1:
        listed = ", ".join(f"{name!r} {size}" for size, name in sizes.items())
        raise SecateurError(
            "spec_invalid",
            f"The declared axes hold different numbers of samples: {listed}.",
            where="spec.inputs",
            hint="Declare the axis that has the same size in all inputs.",
        )
    return axes


def _by_name(inputs: Sequence[TensorFact]) -> tuple[SampleAxis, ...] | None:
    """The axes whose names are those of a batch; None where there is no such name."""
    named = {
        fact.name: [a for a, s in enumerate(fact.shape) if isinstance(s, str) and _is_batch(s)]
        for fact in inputs
    }
    symbols = Counter(str(fact.shape[axis]) for fact in inputs for axis in named[fact.name])
    if not symbols:
        return None
    most = max(symbols, key=lambda symbol: ("batch" in symbol.lower(), symbols[symbol]))
    found: list[SampleAxis] = []
    for fact in inputs:
        axes = named[fact.name]
        same = [axis for axis in axes if fact.shape[axis] == most] or axes
        open_ = [a for a, s in enumerate(fact.shape) if isinstance(s, str) and not _is_other(s)]
        found.append(next(iter(same or open_), "shared"))
    return tuple(found)


def _origins(inputs: Sequence[TensorFact]) -> list[tuple[int, int]]:
    """Input and axis from which a reading starts, best first."""
    first = next((n for n, fact in enumerate(inputs) if fact.shape), None)
    if first is None:
        return []
    shape = inputs[first].shape
    # The last axis of several holds features, unless its size is open.
    some = shape[:-1] if len(shape) > 1 else shape
    fixed = [a for a, size in enumerate(some) if isinstance(size, int)]
    free = [a for a, size in enumerate(shape) if isinstance(size, str) and not _is_other(size)]
    other = [a for a, size in enumerate(shape) if isinstance(size, str) and _is_other(size)]
    if shape[0] == 1 or len(shape) > 3:
        # One sample, as most files of a fixed size have it; or planes, whose sizes are often free.
        order = [0, *free, *fixed, *other]
    elif 0 in free or not (free or other):
        order = [0, *free, *fixed, *other]
    else:
        order = [*free, *fixed, *other]
    return [(first, axis) for axis in dict.fromkeys(order)]


def _following(inputs: Sequence[TensorFact], origin: int, axis: int) -> tuple[SampleAxis, ...]:
    """Where the other inputs hold what the origin holds along that axis."""
    size = inputs[origin].shape[axis]
    found: list[SampleAxis] = []
    for number, fact in enumerate(inputs):
        if number == origin:
            found.append(axis)
            continue
        same = [a for a, other in enumerate(fact.shape) if other == size]
        if not same and isinstance(size, str):
            same = [a for a, s in enumerate(fact.shape) if isinstance(s, str) and not _is_other(s)]
        found.append(axis if axis in same else next(iter(same), "shared"))
    return tuple(found)


def _plain(fact: TensorFact) -> SampleAxis:
    return 0 if fact.shape else "shared"


def _is_batch(symbol: str) -> bool:
    return bool(_BATCH.search(symbol.lower()))


def _is_other(symbol: str) -> bool:
    return bool(_OTHER.search(symbol.lower())) and not _is_batch(symbol)
