"""Writes architecture.json and model.safetensors from a live module, and checks what it wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pruning.axes import Declared, readings, unknown
from pruning.errors import SecateurError
from pruning.facts import TensorFact
from pruning.formats.architecture.build import CONSTANTS
from pruning.formats.architecture.reading import read_architecture
from pruning.formats.architecture.schema import (
    FILE,
    FORMAT,
    VERSION,
    Architecture,
    Input,
    Output,
    Stored,
    dump,
)
from pruning.formats.architecture.trace import (
    Tracer,
    argument_names,
    reached,
    traced_constant,
)
from pruning.formats.facts import with_sample_axes
from pruning.formats.limits import Limits
from pruning.library.plain import Plain, check_copy, plain
from pruning.library.ties import merged
from pruning.library.trial import called
from pruning.outputs import named_tensors

WEIGHTS = "model.safetensors"
_UNBOUND = Limits(parameters=2**40, model_bytes=2**50, activation_bytes=2**50, text_bytes=2**30)
_TOLERANCE = 1e-5
_OTHER = (
    "A tensor may be changed in place through a view of it, or drawn at random; write that part "
    "without."
)
_FIXED = "Export with a fixed batch size: dynamic_batch=False, or --fixed-batch."


def export(
    module: nn.Module,
    example_inputs: Sequence[Tensor],
    folder: Path | str,
    input_names: Sequence[str] | None = None,
    dynamic_batch: bool = True,
    samples: Declared | None = None,
) -> list[Path]:
    """Writes a module as architecture.json and model.safetensors.

    The module is run once on the examples and its calls are written down; what was written is read
    again and compared with the module, also on a larger batch.

    Args:
        module: Any module; it is copied, and traced in eval mode on the CPU. Wrappers are taken
            off it, and parameters that share their memory are written as ties.
        example_inputs: What its forward takes, single numbers and states among them.
        folder: Where to; made if it is not there.
        input_names: Names of the inputs; those of forward's arguments where left out.
        dynamic_batch: Whether other batch sizes than the examples' can be given later.
        samples: Axis of the samples by input, `shared` for a value that all of them have in common;
            where left out, what a trial of the module shows, and else the first axis.

    Returns:
        The two files.

    Raises:
        SecateurError: What `plain` and `check_copy` raise for the module, as `pruning.prune` does;
            `operator_unsupported` with the module and the line of what can't be declared,
            `verification_failed`, or what the reader refuses.
    """
    inputs = _examples(example_inputs)
    found = plain(module)
    names = list(input_names or argument_names(found.module, len(inputs)))
    if len(names) != len(inputs):
        raise SecateurError("usage", f"{len(names)} names for {len(inputs)} inputs.")
    with found.settled():
        copy = _copied(found)
        check_copy(copy, found.module, _clones(inputs))
        facts = _read(_copied(found), names, inputs, samples)
        with merged(copy, found.ties):
            return _written(found, copy, inputs, facts, Path(folder), dynamic_batch)


def _written(
    found: Plain,
    copy: nn.Module,
    inputs: list[Tensor],
    facts: list[TensorFact],
    folder: Path,
    dynamic: bool,
) -> list[Path]:
    """Traces the copy, writes what was traced, and compares it with another copy."""
    state, ties = _state(copy)
    tracer = Tracer(copy)
    results = tracer.run([fact.name for fact in facts], _clones(inputs))
    outputs = [Output(name=name, node=tracer.name_of(value)) for name, value in _results(results)]
    if not outputs:
        raise SecateurError(
            "operator_unsupported",
            f"The module returns {type(results).__name__} without a tensor.",
            where="outputs",
            hint="Let it return a tensor, or a tuple, dict or dataclass of tensors.",
        )
    graph = reached(tracer.nodes, [o.node for o in outputs])
    used = {node.target for node in graph if node.op == "constant"}
    constants = {n: traced_constant(t) for n, t in tracer.constants.items() if n in used}
    architecture = Architecture(
        format=FORMAT,
        version=VERSION,
        producer=f"secateur, torch {torch.__version__.partition('+')[0]}",
        inputs=[_input(fact, dynamic) for fact in facts],
        outputs=outputs,
        layers=tracer.layers,
        parameters=_stored(copy, state, tracer),
        constants=constants,
        graph=graph,
        ties=ties,
    )
    large = {f"{CONSTANTS}.{n}": tracer.constants[n] for n, c in constants.items()
             if c.values is None}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    doubled = {name for group in ties for name in group[1:]}
    tensors = {n: t for n, t in (state | large).items() if n not in doubled}
    (folder / FILE).write_bytes(dump(architecture))
    save_file({n: t.detach().clone().contiguous() for n, t in tensors.items()}, folder / WEIGHTS)
    _verify(_copied(found), folder, inputs, [f.axis for f in facts] if dynamic else None)
    return [folder / FILE, folder / WEIGHTS]


def _examples(given: Sequence[Tensor] | Tensor) -> list[Tensor]:
    inputs = [given] if isinstance(given, Tensor) else list(given)
    if not all(isinstance(x, Tensor) for x in inputs):
        raise SecateurError(
            "usage",
            "Example inputs are a tensor or a sequence of tensors.",
            where="example_inputs",
            hint="Give them in the order of forward: (torch.randn(1, 3, 32, 32),).",
        )
    if not any(x.dim() for x in inputs):
        raise SecateurError(
            "usage",
            "No input has an axis that could hold samples.",
            where="example_inputs",
            hint="Give an example with an axis of samples in one input at least.",
        )
    return [x.detach().cpu() for x in inputs]


def _clones(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.clone() for x in inputs)


def _copied(found: Plain) -> nn.Module:
    """A copy in eval mode on the CPU, whose forwards may be replaced."""
    return found.copied().cpu().eval()


def _read(
    module: nn.Module, names: list[str], inputs: Sequence[Tensor], declared: Declared | None
) -> list[TensorFact]:
    """The inputs with the axis of the samples: declared, found by a trial, or the first."""
    facts = [
        TensorFact(name=n, dtype=str(x.dtype).removeprefix("torch."), shape=list(x.shape))
        for n, x in zip(names, inputs, strict=True)
    ]
    if declared:
        return readings(facts, declared)[0].of(facts)
    try:
        found = with_sample_axes(module, facts, None, _UNBOUND)
    except SecateurError:  # it takes other numbers than random ones
        return facts
    return facts if unknown(found) else found


def _input(fact: TensorFact, dynamic: bool) -> Input:
    sizes: list[Any] = list(fact.shape)
    if dynamic and fact.axis is not None:
        sizes[fact.axis] = "batch"
    dtype: Any = fact.dtype
    return Input(name=fact.name, dtype=dtype, shape=sizes)


def _state(module: nn.Module) -> tuple[dict[str, Tensor], list[list[str]]]:
    """All tensors of the module's state dict, and the names that share one."""
    state = {n: t for n, t in module.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    groups: dict[int, list[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), []).append(name)
    return state, [names for names in groups.values() if len(names) > 1]


def _stored(module: nn.Module, state: Mapping[str, Tensor], tracer: Tracer) -> dict[str, Stored]:
    """The tensors that belong to no layer."""
    layers = tuple(f"{path}." for path in tracer.layers)
    found = {}
    for name, tensor in state.items():
        if name.startswith(layers):
            continue
        dtype: Any = str(tensor.dtype).removeprefix("torch.")
        buffer = not isinstance(tensor, nn.Parameter)
        found[name] = Stored(shape=list(tensor.shape), dtype=dtype, buffer=buffer)
    return found


def _results(returned: Any) -> list[tuple[str, Tensor]]:
    """The tensors of a result, each with a name: its keys, or `output_1` for a position."""
    named = [(path.replace(".", "_"), tensor) for path, tensor in named_tensors(returned)]
    return [
        (name if name and not name[0].isdigit() else f"output_{name}".rstrip("_"), tensor)
        for name, tensor in named
    ]


def _verify(
    module: nn.Module, folder: Path, inputs: list[Tensor], axes: Sequence[int | None] | None
) -> None:
    """Compares at the examples' batch size, and at one more where `axes` say where samples are."""
    imported = read_architecture(folder, _UNBOUND).module
    _compare(module, imported, inputs, _OTHER)
    if axes is not None:
        more = [
            x if axis is None else torch.cat([x, x.narrow(axis, 0, 1)], axis)
            for x, axis in zip(inputs, axes, strict=True)
        ]
        _compare(module, imported, more, _FIXED)


def _compare(module: nn.Module, imported: nn.Module, inputs: list[Tensor], hint: str) -> None:
    with torch.no_grad():
        wanted = [t for _, t in named_tensors(called(module, _clones(inputs)))]
        try:
            given = [t for _, t in named_tensors(imported(*inputs))]
        except SecateurError as error:
            raise SecateurError(
                "verification_failed",
                f"What was written can't be run: {error.message}",
                where=error.where,
                hint=hint,
            ) from None  # fmt: skip
    for index, (a, b) in enumerate(zip(wanted, given, strict=True)):
        near = a.shape == b.shape and torch.allclose(
            a.double(), b.double(), rtol=_bound(a), atol=_bound(a), equal_nan=True
        )
        if not near:
            raise SecateurError(
                "verification_failed",
                f"What was written computes another output_{index} than the module, for inputs of "
                f"{', '.join(str(list(x.shape)) for x in inputs)}.",
                where=f"output_{index}",
                hint=hint,
            )


def _bound(value: Tensor) -> float:
    """Halves are computed in float32 by what was written, and in halves by the module."""
    return 3e-2 if value.dtype in (torch.float16, torch.bfloat16) else _TOLERANCE
