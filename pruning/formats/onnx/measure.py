"""What one pass of a module takes, and whether its batch size is free.

Told from shapes where these prove it. Else the module is run on a few samples, if that is cheap;
if it is not, shapes are believed: those of a pass without data at two batch sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from pruning.axes import Declared
from pruning.errors import SecateurError
from pruning.facts import TensorFact
from pruning.formats.limits import Limits
from pruning.formats.onnx.batched import scaled, scaling
from pruning.formats.onnx.graph import Graph, Shapes
from pruning.formats.onnx.module import OnnxModule
from pruning.formats.onnx.passes import (
    Sizes,
    input_sizes,
    is_cheap,
    known_shapes,
    over_limit,
    run_at_meta,
    trial,
    tries,
)
from pruning.formats.onnx.shapes import LARGE, OPEN, SMALL
from pruning.formats.onnx.spread import shapes_apart
from pruning.formats.onnx.values import TooDear
from pruning.formats.trial import TOGETHER, Compared, Verdict, compare, drawn, settled
from pruning.influence import DIFFERENT, apart, orders

_WRITTEN_INSIDE = (1, 2, 4, 8, 16, 32)
"""Numbers of samples that a graph is tried at which leaves it open and runs at no two of them."""

_PAYS = 8
"""How much more than other trials one may take that finds out whether a file can run batched."""


@dataclass
class Measured:
    """What intake found out about the passes of a graph.

    Args:
        sizes: Of a pass; None where open sizes leave it unknown.
        batch: The only number of samples that the graph runs at; None for any.
        verdict: Whether samples stay apart.
        inputs: With the axis of the samples.
        axes: The same of the outputs, by name, where known.
    """

    sizes: Sizes | None
    batch: int | None
    verdict: Verdict
    inputs: list[TensorFact]
    axes: dict[str, int]


def measure(
    graph: Graph,
    module: OnnxModule,
    inputs: list[TensorFact],
    limits: Limits,
    declared: Declared | None = None,
) -> Measured:
    """Sizes of a pass, which axis of each input holds samples, and how many if that is fixed.

    Sizes that the file leaves open are taken to be small ones that the graph runs at, if there
    are any; else there are no sizes.

    Raises:
        SecateurError: `model_too_large` for results over the limit, `model_invalid` where a graph
            of fixed sizes can't run at them.
    """
    if any(size == 0 for fact in inputs for size in fact.shape):
        raise SecateurError("model_invalid", "An input has a size of 0.")
    return settled(inputs, declared, lambda read: _open_measured(graph, module, read, limits))


def _open_measured(
    graph: Graph, module: OnnxModule, inputs: list[TensorFact], limits: Limits
) -> Measured:
    """What is found for one way to read the inputs, which may leave sizes open."""
    counts = [fact.count for fact in inputs if fact.axis is not None]
    fixed = next((size for size in counts if isinstance(size, int)), None)
    if not any(isinstance(size, str) for fact in inputs for size in fact.one):
        return replace(_measure(graph, module, inputs, fixed, limits), inputs=inputs)
    for plane, line in OPEN:
        try:
            closed = [_closed(fact, plane, line) for fact in inputs]
            found = _measure(graph, module, closed, fixed, limits)
        except SecateurError:
            continue
        return replace(found, inputs=inputs)
    return Measured(None, fixed, "fixed", inputs, {})


def _closed(fact: TensorFact, plane: int, line: int) -> TensorFact:
    """The input with its open sizes as given, but for that of the samples."""
    open_ = plane if len(fact.shape) > 3 else line
    shape = [
        open_ if isinstance(size, str) and place != fact.axis else size
        for place, size in enumerate(fact.shape)
    ]
    return fact.model_copy(update={"shape": shape})


def _measure(
    graph: Graph,
    module: OnnxModule,
    inputs: list[TensorFact],
    fixed: int | None,
    limits: Limits,
) -> Measured:
    for fact in inputs:
        if prod(int(size) for size in fact.one) > limits.activation_bytes:
            raise over_limit(limits.activation_bytes, fact.name)
    known, large = graph.both_shapes(input_sizes(inputs))
    proof = shapes_apart(graph, module, known, large)
    if proof is None:
        known = known_shapes(graph, inputs, SMALL)
        proof = shapes_apart(graph, module, known, known_shapes(graph, inputs, LARGE))
    if proof is not None:
        return Measured(
            _counted(module, proof.shapes, known, limits), None, "apart", inputs, proof.axes
        )
    free, compared = _free(graph, module, inputs, limits)
    if free is not None and compared.verdict == "apart":
        return Measured(free, None, "apart", inputs, _named(graph, compared.axes))
    if compared.verdict == "mixed":
        verdict: Verdict = "alone" if fixed == 1 else "mixed"
        return _at_size(graph, module, inputs, fixed or TOGETHER, limits, compared, verdict)
    failure = None
    for size in (fixed,) if fixed else _WRITTEN_INSIDE:
        # A file that leaves the number open may have that of its example written down inside.
        if fixed is not None or free is None:
            batched = _batched(graph, module, inputs, size, limits)
            if batched is not None:
                return batched
        try:
            return _at_size(graph, module, inputs, size, limits, compared, "fixed")
        except SecateurError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _free(
    graph: Graph, module: OnnxModule, inputs: list[TensorFact], limits: Limits
) -> tuple[Sizes | None, Compared]:
    """Sizes of a pass of two samples, and what batches of two and three show; none can run: None.

    Where a pass is too dear to try, the shapes of the results at both sizes have to do.
    """
    try:
        if is_cheap(graph, module, inputs, 3, limits):
            try:
                sizes, found = tries(module, inputs, DIFFERENT, orders(DIFFERENT), limits)
                return sizes, compare(found)
            except TooDear:
                pass
        small, large = Sizes(2, limits.activation_bytes), Sizes(3, limits.activation_bytes)
        shapes = [
            (run_at_meta(module, inputs, small), [0, 1]),
            (run_at_meta(module, inputs, large), [0, 1, 2]),
        ]
        return small, compare(shapes, tried=False)
    except SecateurError as error:
        if error.code == "model_too_large":
            raise
        return None, Compared("fixed")


def _at_size(
    graph: Graph,
    module: OnnxModule,
    inputs: list[TensorFact],
    batch: int,
    limits: Limits,
    compared: Compared,
    verdict: Verdict,
) -> Measured:
    """What passes of that many samples show, where no other number can be run or is asked for."""
    if is_cheap(graph, module, inputs, batch, limits):
        several = batch > 1 and verdict == "fixed"
        batches = orders(2 * batch, batch) if several else [[*range(batch)]]
        try:
            sizes, found = tries(module, inputs, 2 * batch, batches, limits)
            if several:
                compared = compare(found)
                verdict = "mixed" if compared.verdict == "mixed" else "fixed"
            return Measured(sizes, batch, verdict, inputs, _named(graph, compared.axes))
        except TooDear:
            pass
    sizes = Sizes(batch, limits.activation_bytes)
    run_at_meta(module, inputs, sizes)
    return Measured(sizes, batch, verdict, inputs, _named(graph, compared.axes))


def _batched(
    graph: Graph, module: OnnxModule, inputs: list[TensorFact], fixed: int, limits: Limits
) -> Measured | None:
    """The same module at any number of samples, where sizes that hold the file's can be scaled.

    It is taken where any number of samples gives what the file's own number gives; see `batched`.
    Where that is too dear to try, passes are long, and a batch of them saves little.
    """
    plain = module.steps
    try:
        if not is_cheap(graph, module, inputs, fixed, limits, times=_PAYS):
            return None
        with trial():
            found = scaled(module, inputs, fixed, drawn(inputs, 2 * fixed, top=2))
        if found is None:
            return None
        module.host_constants |= found.sizes
        module.scaling = scaling(inputs, fixed, found)
        module.finish(found.steps)
        sizes, free = tries(module, inputs, DIFFERENT, orders(DIFFERENT), limits)
        compared = compare(free)
        if compared.verdict == "apart" and _as_in_file(module, inputs, fixed, compared, limits):
            return Measured(sizes, None, "apart", inputs, _named(graph, compared.axes))
    except (SecateurError, TooDear):
        pass  # it runs at the file's own number alone
    if module.scaling is not None:
        for name in module.scaling.places:
            del module.host_constants[name]
        module.scaling = None
        module.finish(plain)
    return None


def _as_in_file(
    module: OnnxModule, inputs: list[TensorFact], fixed: int, compared: Compared, limits: Limits
) -> bool:
    """Whether two batches of the file's own number give together what each gives."""
    both = [*range(2 * fixed)]
    _, found = tries(module, inputs, len(both), [both[:fixed], both[fixed:], both], limits)
    return all(
        axis is not None and apart([(outputs[n], order) for outputs, order in found], axis)
        for n, axis in enumerate(compared.axes)
    )


def _named(graph: Graph, axes: Sequence[int | None]) -> dict[str, int]:
    return {name: axis for name, axis in zip(graph.outputs, axes, strict=False) if axis is not None}


def _counted(
    module: OnnxModule, shapes: dict[str, tuple[int, ...]], known: Shapes, limits: Limits
) -> Sizes:
    """The sizes of a pass as its shapes tell them.

    Raises:
        SecateurError: `model_too_large` over the limit.
    """
    sizes = Sizes(SMALL, limits.activation_bytes)
    for name in module.input_names:
        sizes.given(name, prod(shapes.get(name, (0,))))
    for step in module.steps:
        for name in step.outputs:
            numbers = prod(shapes.get(name, (0,)))
            size = numbers * (known[name][1] if name in known else 4)
            sizes.add(step, size)
            if name == step.outputs[0]:
                sizes.note(step, [numbers], size)
            else:
                sizes.given(name, numbers)
    return sizes
