"""architecture.json and its weights to a trainable module, its facts, and the ties between them."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from pruning.axes import Declared
from pruning.errors import SecateurError
from pruning.facts import ModelFacts, TensorFact
from pruning.formats import safetensors
from pruning.formats.architecture.build import build, price
from pruning.formats.architecture.fill import fill, match
from pruning.formats.architecture.module import ArchitectureModule
from pruning.formats.architecture.schema import (
    FILE,
    Architecture,
    invalid,
    parse,
    shown,
)
from pruning.formats.architecture.writing import ImportedArchitecture, Weights
from pruning.formats.bundle import Bundle, open_bundle
from pruning.formats.facts import module_facts
from pruning.formats.failures import Accepted
from pruning.formats.limits import Limits
from pruning.formats.state_dict import convert, is_state_dict, read_state_dict

EXPORT = (
    "Write architecture.json beside it: `secateur export MODULE:ATTRIBUTE --input 1x3x224x224 "
    "--out FOLDER`, and upload both files."
)
_STATE_DICTS = (".pt", ".pth", ".bin")


def read_architecture(
    source: Path, limits: Limits, declared: Declared | None = None
) -> ImportedArchitecture:
    """Reads architecture.json and its weights.

    Args:
        source: A folder, a .tar or a .zip with architecture.json and one .safetensors or one state
            dict (.pt, .pth, .bin).
        limits: Sizes that are refused.
        declared: The axis of the samples by input, where the user says.

    Raises:
        SecateurError: `unsupported_format` for weights without an architecture, `model_*` with the
            layer, node or tensor in `where`, `operator_unsupported`, `weights_non_finite`.
    """
    if source.is_file() and is_state_dict(source):
        raise _alone("a state dict")
    scratch = TemporaryDirectory(prefix="architecture-")
    with open_bundle(source, limits) as bundle:
        name = _members(bundle)
        raw = bundle.read(FILE, limits.text_bytes)
        architecture = parse(raw, limits)
        skeleton = build(architecture, limits)
        if bundle.sizes[name] > limits.model_bytes:
            raise SecateurError(
                "model_too_large",
                f"{name} has {bundle.sizes[name]} bytes; the limit is {limits.model_bytes}.",
                where=name,
            )
        weights = _weights(name, bundle.path(name, Path(scratch.name)), scratch, limits)
        kind, prefix = bundle.kind, bundle.prefix
    module = skeleton.module
    found = match(skeleton, architecture, weights.arrays, weights.name)
    price(skeleton, architecture.inputs, limits)
    fill(skeleton, found, weights.arrays)
    names = found.names
    weight_names = {
        path: names[path]
        for path, _ in module.named_parameters(remove_duplicate=False)
        if path in names
    }
    facts = _facts(architecture, module, weight_names, weights, limits, declared)
    module._secateur_accepted = Accepted.of(facts.inputs)
    return ImportedArchitecture(
        module,
        facts,
        weight_names,
        source,
        names=names,
        weights=weights,
        architecture=raw,
        kind=kind,
        prefix=prefix,
        scratch=scratch,
        limits=limits,
    )


def _members(bundle: Bundle) -> str:
    """The name of the weights' file."""
    others = [name for name in bundle.names if name != FILE]
    if FILE not in bundle.sizes:
        raise _alone(", ".join(map(shown, others[:4])) or "nothing")
    known = [n for n in others if n.endswith((".safetensors", *_STATE_DICTS))]
    if len(others) != 1 or not known:
        raise invalid(
            f"beside it there has to be one .safetensors or one state dict, not "
            f"{', '.join(map(shown, others[:8])) or 'nothing'}",
            FILE,
            "Upload architecture.json and one file of weights.",
        )
    return known[0]


def _alone(what: str) -> SecateurError:
    return SecateurError(
        "unsupported_format",
        f"The upload holds {what}, which are numbers without the network they belong to.",
        where=FILE,
        hint=EXPORT,
    )


def _weights(name: str, path: Path, scratch: "TemporaryDirectory[str]", limits: Limits) -> Weights:
    state = None
    if name.endswith(_STATE_DICTS):
        state = read_state_dict(path, limits)
        converted = Path(scratch.name) / "converted.safetensors"
        convert(state, converted, limits)
        header = safetensors.read_header(converted, limits)
        return Weights(name, path, safetensors.Arrays(converted, header), {}, state)
    header = safetensors.read_header(path, limits)
    return Weights(name, path, safetensors.Arrays(path, header), header.metadata, None)


def _facts(
    architecture: Architecture,
    module: ArchitectureModule,
    weight_names: dict[str, str],
    weights: Weights,
    limits: Limits,
    declared: Declared | None,
) -> ModelFacts:
    used = set(weight_names.values())
    facts = module_facts(
        module,
        [TensorFact(name=i.name, dtype=i.dtype, shape=list(i.shape)) for i in architecture.inputs],
        format="architecture",
        version=str(architecture.version),
        weight_names=weight_names,
        dtypes={name: weights.arrays[name].dtype.name for name in used},
        limits=limits,
        producer=shown(architecture.producer),
        declared=declared,
    )
    outputs = [
        found.model_copy(update={"name": output.name})
        for found, output in zip(facts.outputs, architecture.outputs, strict=True)
    ]
    kinds = Counter(
        architecture.layers[node.target].kind if node.op == "layer" else node.target
        for node in architecture.graph
        if node.op in ("layer", "function")
    )
    return facts.model_copy(update={"outputs": outputs, "operators": dict(sorted(kinds.items()))})
