"""What intake learns of a module, whatever format it came in: sizes found by running it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pruning.axes import Declared
from pruning.calling import arranged
from pruning.errors import SecateurError
from pruning.facts import LayerFact, ModelFacts, TensorFact
from pruning.formats.counting import Counted, TooLongError
from pruning.formats.limits import Limits
from pruning.formats.trial import (
    TOGETHER,
    Compared,
    Size,
    Verdict,
    compare,
    drawn,
    picked,
    settled,
)
from pruning.functional import called_with
from pruning.influence import DIFFERENT, Order, orders
from pruning.layers import Seen, layer_facts, other_facts, weight_names
from pruning.outputs import named_tensors
from pruning.uses import Uses, computed

SYMBOLIC_SIZE = 16
"""What a size that is only a name is taken to be while the module is tried."""

_OF_ACTIVATIONS = 8  # what a pass may leave behind, over what one of its inputs may take

MOST_PRICED = 5_000
"""Operations of the pass without data; what takes more is counted while it runs with data."""

MOST_CALLS = 150_000
"""Operations of a pass with data, each of which takes some microseconds whatever its size."""

Samples = Callable[[int], tuple[Tensor, ...]]

Batched = Callable[[Sequence[TensorFact], int, Sequence[Tensor]], Callable[[], None] | None]
"""Lets a module of a fixed number of samples run any, told its inputs, that number and twice as
many samples; gives what takes it back, or None where nothing was done."""


def module_facts(
    module: nn.Module,
    inputs: list[TensorFact],
    *,
    format: str,
    version: str,
    weight_names: Mapping[str, str],
    dtypes: Mapping[str, str],
    limits: Limits,
    samples: Samples | None = None,
    size: Size | None = None,
    producer: str = "",
    declared: Declared | None = None,
    batched: Batched | None = None,
) -> ModelFacts:
    """Facts of an imported module, found by running it on a few samples.

    Args:
        module: In eval mode, on the CPU.
        inputs: What it takes, in order.
        format: `ModelFacts.format`.
        version: Version of the format.
        weight_names: Parameter path to tensor name, shared parameters under each path.
        dtypes: Tensor name to the name of its type in the file.
        limits: `activation_bytes` bounds a pass.
        samples: Makes inputs for a batch size, samples first; drawn where left out.
        size: What a size is that is only a name; `SYMBOLIC_SIZE` where left out.
        producer: Who wrote the file.
        declared: The axis of the samples by input, where the user says.
        batched: Tried where the module runs at one number of samples alone.

    Raises:
        SecateurError: `model_too_large` for a pass over the limit, `model_invalid` where the
            module can't run on inputs of its own shapes.
    """
    size = size or (lambda name: SYMBOLIC_SIZE)
    run = _settled(module, inputs, declared, limits, samples, size, batched)
    inputs = run.inputs
    _find_open_sizes(run, module, inputs, _makers(inputs, samples, size)[-1], limits)
    layers = layer_facts(module, run.seen, weight_names, dtypes)
    macs = [layer.macs for layer in layers]
    return ModelFacts(
        format=format,
        version=version,
        producer=producer,
        inputs=inputs,
        outputs=run.outputs,
        layers=layers,
        others=other_facts(module, layers, run.seen),
        ties=ties(module),
        dtypes=sorted(set(dtypes.values())),
        parameters=sum(p.numel() for p in module.parameters()),
        prunable_parameters=distinct(layers),
        macs=None if None in macs else sum(m for m in macs if m is not None),
        activation_bytes=-(-run.bytes // run.batch),
        batch=None if run.free else (_count(inputs) or run.batch),
    )


def with_sample_axes(
    module: nn.Module, inputs: list[TensorFact], declared: Declared | None, limits: Limits
) -> list[TensorFact]:
    """Inputs of fixed sizes with the axis of the samples, found by running the module.

    Args:
        module: In eval mode, on the CPU.
        inputs: What it takes, in order.
        declared: The axis of the samples by input, where the user says.
        limits: `activation_bytes` bounds a pass.

    Raises:
        SecateurError: As `module_facts`.
    """
    return _settled(module, inputs, declared, limits, None, lambda name: SYMBOLIC_SIZE).inputs


def _settled(
    module: nn.Module,
    inputs: list[TensorFact],
    declared: Declared | None,
    limits: Limits,
    samples: Samples | None,
    size: Size,
    batched: Batched | None = None,
) -> "_Run":
    def attempt(read: list[TensorFact]) -> _Run:
        _price_inputs(read, limits)
        return _measured(module, read, _makers(read, samples, size), limits, batched)

    return settled(inputs, declared, attempt)


def ties(module: nn.Module) -> list[list[str]]:
    """Paths of parameters that are one object, in groups."""
    groups: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


class _Run:
    """What a pass at batch size `batch` showed, and the trial of samples before it."""

    def __init__(self, batch: int) -> None:
        self.batch, self.bytes = batch, 0
        self.sizes: dict[str, int] = {}
        self.seen = Seen()
        self.results: tuple[Tensor, ...] = ()
        self.open: dict[tuple[int, int], str] = {}
        self.verdict: Verdict = "fixed"
        self.axes: tuple[int | None, ...] = ()
        self.inputs: list[TensorFact] = []

    @property
    def free(self) -> bool:
        """Whether any number of samples can be run."""
        return self.verdict == "apart"

    @property
    def outputs(self) -> list[TensorFact]:
        """The outputs; sizes as seen, that of the samples free where the batch is."""
        facts = []
        for index, result in enumerate(self.results):
            shape: list[int | str] = [
                self.open.get((index, axis), int(size)) for axis, size in enumerate(result.shape)
            ]
            axis = self.axes[index] if index < len(self.axes) else None
            if axis is None:
                axis = next((a for a, size in enumerate(shape) if size == self.batch), 0)
            if self.free and shape:
                shape[axis] = "N"
            name = f"output_{index}" if index else "output"
            facts.append(
                TensorFact(name=name, dtype=_name(result.dtype), shape=shape, samples=axis)
            )
        return facts


def _makers(
    inputs: list[TensorFact], samples: Samples | None, size: Size
) -> list[Callable[[int], list[Tensor]]]:
    """What makes inputs for a batch size: the last that works is the plainest."""
    if samples is not None:
        return [lambda batch: list(arranged(samples(batch), [fact.axis for fact in inputs]))]
    tops = (1,) if all(_is_real(fact) for fact in inputs) else (2, 1)
    return [partial(_drawn, inputs, size, top) for top in tops]


def _drawn(inputs: list[TensorFact], size: Size, top: int, batch: int) -> list[Tensor]:
    return drawn(inputs, batch, size=size, top=top)


def _is_real(fact: TensorFact) -> bool:
    return bool(getattr(torch, fact.dtype).is_floating_point)


def _count(inputs: list[TensorFact]) -> int | None:
    """The number of samples that the inputs declare."""
    counts = (fact.count for fact in inputs if fact.axis is not None)
    return next((size for size in counts if isinstance(size, int) and size > 0), None)


def _measured(
    module: nn.Module,
    inputs: list[TensorFact],
    makers: list[Callable[[int], list[Tensor]]],
    limits: Limits,
    batched: Batched | None,
) -> _Run:
    first = _count(inputs) or 2
    _price(module, makers[-1], first, limits)
    compared = Compared("fixed")
    for make in makers:
        samples = make(DIFFERENT)
        try:
            runs = _tried(module, inputs, samples, orders(DIFFERENT), limits)
        except SecateurError as error:
            if error.code == "model_too_large":
                raise
            continue
        compared = _compared(runs)
        if compared.verdict == "apart":
            return _told(runs[0][0], compared, inputs)
        break
    count = _count(inputs)
    if batched is not None and count is not None and compared.verdict == "fixed":
        # The first maker draws samples that differ, also where they are whole numbers.
        run = _batched(module, inputs, makers[0], count, limits, batched)
        if run is not None:
            return run
    for make in makers[:-1]:
        with suppress(SecateurError):
            return _at_size(module, inputs, make, compared, limits)
    return _at_size(module, inputs, makers[-1], compared, limits)


def _batched(
    module: nn.Module,
    inputs: list[TensorFact],
    make: Callable[[int], list[Tensor]],
    count: int,
    limits: Limits,
    batched: Batched,
) -> _Run | None:
    """The same module at any number of samples, where that gives what the file's own gives."""
    both, undo = [*range(2 * count)], None
    with suppress(SecateurError):
        samples = make(len(both))
        with Counted(limits, len(both), MOST_CALLS).run():
            undo = batched(inputs, count, samples)
        if undo is None:
            return None
        runs = _tried(module, inputs, make(DIFFERENT), orders(DIFFERENT), limits)
        compared = _compared(runs)
        own = [both[:count], both[count:], both]
        same = _compared(_tried(module, inputs, samples, own, limits))
        if compared.verdict == same.verdict == "apart" and compared.axes == same.axes:
            return _told(runs[0][0], compared, inputs)
    if undo is not None:
        undo()
    return None


def _tried(
    module: nn.Module,
    inputs: list[TensorFact],
    samples: list[Tensor],
    orders: list[Order],
    limits: Limits,
) -> list[tuple[_Run, Order]]:
    """A pass for each order; what the weights are used for is seen in the first."""
    return [
        (_passed(module, picked(samples, inputs, order), len(order), limits, watched=not n), order)
        for n, order in enumerate(orders)
    ]


def _compared(runs: list[tuple[_Run, Order]]) -> Compared:
    return compare([(run.results, order) for run, order in runs])


def _at_size(
    module: nn.Module,
    inputs: list[TensorFact],
    make: Callable[[int], list[Tensor]],
    compared: Compared,
    limits: Limits,
) -> _Run:
    """A pass at the one number of samples, and others where they can tell something."""
    count = _count(inputs)
    if count is not None and count > 1 and compared.verdict == "fixed":
        runs = _tried(module, inputs, make(2 * count), orders(2 * count, count), limits)
        held = _compared(runs)
        compared = Compared("mixed" if held.verdict == "mixed" else "fixed", held.axes)
        return _told(runs[0][0], compared, inputs)
    size = count or (TOGETHER if compared.verdict == "mixed" else 2)
    if count == 1 and compared.verdict == "mixed":
        compared = Compared("alone", compared.axes)
    return _told(_passed(module, make(size), size, limits), compared, inputs)


def _told(run: _Run, compared: Compared, inputs: list[TensorFact]) -> _Run:
    run.verdict, run.axes, run.inputs = compared.verdict, compared.axes, inputs
    return run


def _find_open_sizes(
    run: _Run,
    module: nn.Module,
    inputs: list[TensorFact],
    make: Callable[[int], list[Tensor]],
    limits: Limits,
) -> None:
    """Names the sizes of outputs that follow from sizes of inputs that are only names."""
    names = sorted({s for fact in inputs for s in fact.one if isinstance(s, str)})
    for name in names:
        shorter = tuple(
            _cut(x, [a for a, size in enumerate(fact.shape) if a != fact.axis and size == name])
            for x, fact in zip(make(run.batch), inputs, strict=True)
        )
        try:
            found = _passed(module, shorter, run.batch, limits, watched=False).results
        except SecateurError:
            continue  # it runs at the tried size alone
        for index, (a, b) in enumerate(zip(run.results, found, strict=True)):
            for axis, (long, short) in enumerate(zip(a.shape, b.shape, strict=False)):
                if long != short:
                    run.open.setdefault((index, axis), name)


def _cut(x: Tensor, axes: list[int]) -> Tensor:
    for axis in axes:
        x = x.narrow(axis, 0, max(1, x.shape[axis] - 1))
    return x


def _price_inputs(inputs: list[TensorFact], limits: Limits) -> None:
    """Refuses samples that take too much by themselves, before one is made."""
    most = limits.activation_bytes // _OF_ACTIVATIONS
    for fact in inputs:
        sizes = (size if isinstance(size, int) else SYMBOLIC_SIZE for size in fact.one)
        taken = prod(sizes) * getattr(torch, fact.dtype).itemsize
        if taken > most:
            raise SecateurError(
                "model_too_large",
                f"One sample of the input {fact.name!r} takes {taken} bytes; the limit is {most}.",
                where=fact.name,
                hint="Use smaller inputs.",
            )


def _price(
    module: nn.Module, make: Callable[[int], list[Tensor]], batch: int, limits: Limits
) -> None:
    """Refuses a pass that would take too much memory, by running it without data."""
    state = {
        name: torch.empty_like(value, device="meta")
        for name, value in [*module.named_parameters(), *module.named_buffers()]
    }
    samples = tuple(x.to("meta") for x in make(batch))
    # Recurrent layers run step by step there, at milliseconds each.
    counted = Counted(limits, batch, MOST_PRICED)
    try:
        with torch.no_grad(), torch.device("meta"), counted.run():
            called_with(module, state, samples)
    except SecateurError as error:
        if error.code == "model_too_large":
            raise
    except Exception:  # what can't run without data is counted while it runs with them
        return


def _passed(
    module: nn.Module,
    samples: Sequence[Tensor],
    batch: int,
    limits: Limits,
    *,
    watched: bool = True,
) -> _Run:
    """One pass; `watched` sees what weights are used for and what layers put out, at some cost."""
    run = _Run(batch)
    uses = Uses(module) if watched else None
    counted = Counted(limits, batch, MOST_CALLS)
    try:
        with _watched(module, run) if watched else nullcontext(), counted.run():
            result = uses.run(*samples) if uses else computed(module, *samples)
    except SecateurError:
        raise
    except TooLongError:
        raise SecateurError(
            "model_too_large",
            f"One pass makes more than {MOST_CALLS} calls of torch.",
            where="inputs",
            hint="Recurrent layers make some for each step: use shorter sequences, or leave their "
            "length open.",
        ) from None
    except Exception as error:  # whatever torch's operators raise for sizes that do not fit
        raise SecateurError(
            "model_invalid",
            f"The network can't run on inputs of its own shapes: {_first_line(error)}",
            where=f"batch of {batch}",
            hint="Check the declared inputs against what the network takes.",
        ) from error
    run.bytes = counted.bytes
    if uses is not None:
        put_out = {path: -(-size // batch) for path, size in run.sizes.items()}
        run.seen = replace(uses.seen(batch), activations=put_out)
    run.results = tuple(tensor for _, tensor in named_tensors(result))
    if not run.results:
        raise SecateurError("model_invalid", "The network puts out no tensor.", where="output")
    return run


@contextmanager
def _watched(module: nn.Module, run: _Run) -> Iterator[None]:
    def watch(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def seen(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                run.sizes[path] = first.nbytes

        return seen

    handles = [
        layer.register_forward_hook(watch(path))
        for path, layer in module.named_modules(remove_duplicate=False)
        if next(weight_names(layer), None)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def distinct(layers: list[LayerFact]) -> int:
    """Weights of all layers, tied ones once."""
    return sum(layer.parameters for layer in layers if layer.tied_to is None)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
