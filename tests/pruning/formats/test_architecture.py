"""Live modules through architecture.json and back: exported, read, pruned, written, read again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruning.data.batches import ArrayData
from pruning.formats.architecture import export, read
from pruning.formats.bundle import pack
from pruning.formats.limits import Limits
from pruning.loop import prune
from pruning.spec import default_spec
from tests.pruning.formats.architecture_cases import CASES, Case, Tied

LIMITS = Limits()


def exported(case: Case, folder: Path) -> nn.Module:
    torch.manual_seed(0)
    module = case.module().eval()
    export(module, case.inputs(2), folder)
    return module


def outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        result = module(*inputs)
    parts = result.values() if isinstance(result, dict) else result
    return [result] if isinstance(result, Tensor) else list(parts)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_read_again_it_computes_the_same_at_any_batch_size(case: Case, tmp_path: Path) -> None:
    module = exported(case, tmp_path)
    imported = read(tmp_path, LIMITS)
    for batch in (1, 3):
        inputs = case.inputs(batch)
        for a, b in zip(outputs(module, inputs), outputs(imported.module, inputs), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-6)
    assert imported.facts.batch is None
    state = module.state_dict()
    assert {n for n in imported.tensors() if not n.startswith("constants.")} <= set(state)
    paths = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    assert {n for n, _ in imported.module.named_parameters(remove_duplicate=False)} == paths
    assert set(imported.weight_names) == paths


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_written_unchanged_the_files_are_the_same(case: Case, tmp_path: Path) -> None:
    exported(case, tmp_path / "in")
    (tmp_path / "out").mkdir()
    for path in read(tmp_path / "in", LIMITS).write(tmp_path / "out", "model"):
        assert path.read_bytes() == (tmp_path / "in" / path.name).read_bytes()


@pytest.mark.parametrize("case", [c for c in CASES if c.pruned], ids=lambda c: c.name)
def test_pruned_layer_by_layer_it_is_what_comes_back(case: Case, tmp_path: Path) -> None:
    exported(case, tmp_path / "in")
    imported = read(tmp_path / "in", LIMITS)
    arrays = case.inputs(24)
    names = [fact.name for fact in imported.facts.inputs]
    data = ArrayData(dict(zip(names, arrays, strict=True)), None)
    spec = default_spec(False) | {"target": {"sparsity": 0.6}}
    outcome = prune(imported.module, data, spec, facts=imported.facts, copy=False)
    removed, total = outcome.report.sparsity.removed, outcome.report.sparsity.total
    assert removed == round(0.6 * total)
    (tmp_path / "out").mkdir()
    imported.write(tmp_path / "out", "model")
    again = read(tmp_path / "out", LIMITS)
    assert again.skeleton() == imported.skeleton()
    inputs = case.inputs(3)
    for a, b in zip(outputs(outcome.module, inputs), outputs(again.module, inputs), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-6)
    zeros = 0
    for name, mask in outcome.masks.items():
        held = again.tensors()[again.weight_names[name]]
        gone = held.reshape(-1)[~np.asarray(mask).reshape(-1)]
        assert not gone.view(np.uint32).any(), "removed weights are +0"
        zeros += gone.size
    assert zeros == removed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_the_files_type_is_kept_bit_for_bit(
    dtype: torch.dtype, suffix: str, tmp_path: Path
) -> None:
    module = Tied().eval()
    folder = tmp_path / "in"
    export(module, (torch.randint(0, 20, (2, 6)),), folder)
    saved = {name: tensor.to(dtype) for name, tensor in module.state_dict().items()}
    (folder / "model.safetensors").unlink()
    if suffix == "pt":
        torch.save(saved, folder / "model.pt")
    else:
        from safetensors.torch import save_model

        save_model(module.to(dtype), str(folder / "model.safetensors"))
    imported = read(folder, LIMITS)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    weight = imported.module.get_parameter("inner.weight")
    assert weight.dtype == compute
    assert imported.facts.dtypes == [str(dtype).removeprefix("torch.")]
    before = {name: np.array(array) for name, array in imported.tensors().items()}
    with torch.no_grad():
        weight[0, 0] = -0.0
        weight[1, 1] = 0.3
    (tmp_path / "out").mkdir()
    imported.write(tmp_path / "out", "model")
    after = read(tmp_path / "out", LIMITS).tensors()
    unsigned = np.dtype(f"u{before['inner.weight'].itemsize}")
    for name, array in before.items():
        same = array.view(unsigned) == after[name].view(unsigned)
        assert array.dtype == after[name].dtype
        if name == "inner.weight":
            assert list(map(tuple, np.argwhere(~same))) == [(0, 0), (1, 1)]
            assert after[name].view(unsigned)[0, 0] == 0
            assert after[name][1, 1] == before[name].dtype.type(0.3)
        else:
            assert same.all()


def test_tied_weights_stay_tied_and_stored_once(tmp_path: Path) -> None:
    module = exported(next(c for c in CASES if c.name == "tied"), tmp_path / "in")
    imported = read(tmp_path / "in", LIMITS)
    inner = imported.module
    assert inner.get_parameter("head.weight") is inner.get_parameter("embedding.weight")
    assert imported.facts.ties == [["embedding.weight", "head.weight"]]
    assert imported.weight_names["head.weight"] == "embedding.weight"
    assert "head.weight" not in imported.tensors()
    assert len(list(inner.parameters())) == len(list(module.parameters()))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_comes_back_as_one(kind: Any, tmp_path: Path) -> None:
    exported(CASES[0], tmp_path / "in")
    members = {path.name: path for path in (tmp_path / "in").iterdir()}
    (source,) = pack(kind, tmp_path / f"model.{kind}", members, "top/")
    imported = read(source, LIMITS)
    (tmp_path / "out").mkdir()
    (written,) = imported.write(tmp_path / "out", "small")
    assert written.name == f"small.{kind}"
    assert written.read_bytes() == source.read_bytes()
    assert read(written, LIMITS).skeleton() == imported.skeleton()


def test_dropout_acts_in_training_with_its_own_probability(tmp_path: Path) -> None:
    exported(next(c for c in CASES if c.name == "residual"), tmp_path)
    module = read(tmp_path, LIMITS).module
    dropouts = [m for m in module.modules() if isinstance(m, nn.Dropout)]
    assert [d.p for d in dropouts] == [0.2]
    inputs = CASES[0].inputs(4)
    module.train()
    assert not torch.equal(module(*inputs), module(*inputs))


def test_it_is_trainable_copyable_and_functional(tmp_path: Path) -> None:
    import copy

    case = CASES[0]
    exported(case, tmp_path)
    module = read(tmp_path, LIMITS).module
    twin = copy.deepcopy(module)
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert next(module.parameters()).abs().sum() > 0
    state = dict(module.named_parameters()) | dict(module.named_buffers())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        result: Tensor = torch.func.functional_call(module, parameters, case.inputs(2))
        return result.square().sum()

    gradients = torch.func.grad(loss)({n: p.detach() for n, p in state.items() if p.requires_grad})
    assert all(g.abs().sum() > 0 for n, g in gradients.items() if n.endswith("weight"))


def test_layers_from_which_an_output_is_reached_are_marked(tmp_path: Path) -> None:
    exported(CASES[0], tmp_path)
    facts = read(tmp_path, LIMITS).facts
    assert [layer.name for layer in facts.layers if layer.is_output] == ["head"]
    assert facts.operators["Conv2d"] == 6
    assert facts.macs
    assert facts.outputs[0].shape == ["N", 10]


def test_the_document_reads_the_same_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    module = exported(CASES[0], tmp_path)
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    inputs = CASES[0].inputs(2)
    again = read(tmp_path, LIMITS).module
    assert torch.equal(outputs(again, inputs)[0], outputs(module, inputs)[0])


def test_a_long_sequence_is_priced_without_going_through_its_steps() -> None:
    from pruning.errors import SecateurError
    from pruning.formats.architecture.build import build, price
    from pruning.formats.architecture.schema import parse

    document = {
        "format": "secateur-architecture",
        "version": 1,
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 1_000_000, 4]}],
        "outputs": [{"name": "y", "node": "y"}],
        "layers": {
            "l": {"kind": "LSTM", "args": {"input_size": 4, "hidden_size": 2, "batch_first": True}}
        },
        "graph": [
            {"name": "h", "op": "layer", "target": "l", "args": {"input": {"node": "x"}}},
            {
                "name": "y",
                "op": "function",
                "target": "element",
                "args": {"input": {"node": "h"}, "index": 0},
            },
        ],
    }
    architecture = parse(json.dumps(document).encode(), LIMITS)
    price(build(architecture, LIMITS), architecture.inputs, LIMITS)
    few = Limits(activation_bytes=10_000_000)
    with pytest.raises(SecateurError, match="bytes of results"):
        price(build(architecture, few), architecture.inputs, few)
