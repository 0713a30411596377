"""torch.export archives become modules that compute what the exported network computes."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export, save

from pruning.formats.limits import Limits
from pruning.formats.pt2 import Pt2Model, read
from pruning.formats.registry import read_model
from tests.pruning.formats.pt2_cases import (
    CASES,
    Recurrent,
    archive,
    changed,
    cnn,
    exported,
    graph,
    members,
    tied,
)

FORMS = [
    (case, mode, core)
    for case, core in [("cnn", False), ("cnn", True), ("tied", True), ("recurrent", False)]
    for mode in ("eval", "train")
]


def imported(folder: Path, module: nn.Module, inputs: tuple[Tensor, ...], **how: bool) -> Pt2Model:
    return read(exported(folder, module, inputs, **how), Limits())


@pytest.mark.parametrize(("case", "mode", "core"), FORMS)
def test_the_module_computes_what_the_network_computes_in_eval_mode(
    tmp_path: Path, case: str, mode: str, core: bool
) -> None:
    module, inputs = CASES[case]()
    module.train(mode == "train")
    model = imported(tmp_path, module, inputs, core=core, free=not core)
    torch.testing.assert_close(model.module(*inputs), module.eval()(*inputs))


def test_every_layer_stands_at_its_own_path(tmp_path: Path) -> None:
    module, inputs = cnn()
    model = imported(tmp_path, module.eval(), inputs)
    for name, layer in module.named_modules():
        if list(layer.parameters(recurse=False)):
            assert type(model.module.get_submodule(name)) is type(layer)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(model.module.state_dict()[name], value)
    assert [fact.name for fact in model.facts.layers] == ["stem", "deep", "head"]
    assert [fact.name for fact in model.facts.layers if fact.is_output] == ["head"]
    assert model.facts.layers[1].groups == 2


def test_recurrent_weights_stay_in_one_lstm(tmp_path: Path) -> None:
    module, inputs = CASES["recurrent"]()
    model = imported(tmp_path, module.eval(), inputs)
    assert isinstance(model.module.rnn, nn.LSTM)
    assert model.weight_names["rnn.weight_hh_l1_reverse"] == "rnn.weight_hh_l1_reverse"


def test_a_matrix_with_inputs_first_is_a_linear_layer_turned_round(tmp_path: Path) -> None:
    module, inputs = CASES["recurrent"]()
    assert isinstance(module, Recurrent)
    model = imported(tmp_path, module.eval(), inputs)
    assert isinstance(model.module.turn, nn.Linear)
    assert model.weight_names["turn.weight"] == "turn"
    torch.testing.assert_close(model.module.turn.weight, module.turn.T)
    torch.testing.assert_close(torch.from_numpy(model.tensors()["turn"]), module.turn.detach())


@pytest.mark.parametrize(("mode", "core"), [("eval", False), ("train", False), ("train", True)])
def test_dropout_keeps_its_own_probability_and_follows_the_mode(
    tmp_path: Path, mode: str, core: bool
) -> None:
    module, inputs = cnn()
    model = imported(tmp_path, module.train(mode == "train"), inputs, core=core, free=not core)
    drops = [m for m in model.module.modules() if isinstance(m, nn.Dropout)]
    assert [drop.p for drop in drops] == [0.3]
    assert not model.module.training
    torch.testing.assert_close(model.module(*inputs), model.module(*inputs))
    model.module.train()
    assert (model.module(*inputs) != model.module(*inputs)).any()


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_batch_norm_learns_its_statistics_in_training_alone(tmp_path: Path, mode: str) -> None:
    module, inputs = cnn()
    model = imported(tmp_path, module.train(mode == "train"), inputs)
    before = model.module.norm.running_mean.clone()
    model.module(*inputs)
    torch.testing.assert_close(model.module.norm.running_mean, before)
    model.module.train()(*inputs)
    assert not torch.allclose(model.module.norm.running_mean, before)
    assert model.module.norm.num_batches_tracked == 1
    expected = module.train()
    expected.norm.running_mean.copy_(before)
    expected(*inputs)
    torch.testing.assert_close(model.module.norm.running_mean, expected.norm.running_mean)


def test_attention_drops_out_in_training_where_the_export_says_so(tmp_path: Path) -> None:
    module, inputs = tied()
    model = imported(tmp_path, module.train(), inputs)
    drops = [m.p for m in model.module.modules() if type(m).__name__ in ("Attention", "Dropout")]
    assert drops == [0.2] * 4


def test_tied_weights_are_one_parameter_under_both_names(tmp_path: Path) -> None:
    module, inputs = tied()
    model = imported(tmp_path, module.eval(), inputs)
    assert model.module.embed.weight is model.module.head.weight
    assert isinstance(model.module.embed, nn.Embedding)
    assert model.facts.ties == [["embed.weight", "head.weight"]]
    assert model.weight_names["embed.weight"] == "embed.weight"
    assert model.weight_names["head.weight"] == "head.weight"


def test_a_copy_shares_nothing_and_gradients_reach_every_parameter(tmp_path: Path) -> None:
    module, inputs = tied()
    model = imported(tmp_path, module.eval(), inputs)
    before = model.module(*inputs)
    copy = deepcopy(model.module)
    copy.train()(*inputs).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in copy.parameters())
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(1)
    torch.testing.assert_close(model.module(*inputs), before)


def test_gradients_of_single_samples_come_by_vmap(tmp_path: Path) -> None:
    module, inputs = cnn()
    model = imported(tmp_path, module.eval(), inputs)
    state = dict(model.module.named_parameters())

    def output(state: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model.module, state, (x[None],)).square().sum()

    found = torch.func.vmap(torch.func.grad(output), (None, 0))(state, inputs[0])
    model.module(*inputs).square().sum().backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient.sum(0), state[name].grad)


def test_the_batch_is_free_where_the_export_left_it_free(tmp_path: Path) -> None:
    module, inputs = tied()
    free = imported(tmp_path, module.eval(), inputs)
    assert free.facts.batch is None
    assert free.facts.inputs[0].name == "ids"
    assert isinstance(free.facts.inputs[0].shape[0], str)
    assert free.module(torch.zeros(5, 6, dtype=torch.int64)).shape == (5, 6, 20)
    fixed = imported(tmp_path, module.eval(), inputs, free=False)
    assert (fixed.file_batch, fixed.facts.inputs[0].shape) == (3, [3, 6])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_kept_in_the_file(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).eval().to(dtype)
    x = torch.randn(3, 4, dtype=dtype)
    model = imported(tmp_path, module, (x,))
    assert model.module(x).dtype == torch.float32
    torch.testing.assert_close(model.module(x), module(x).float(), rtol=2e-2, atol=2e-2)
    assert model.facts.dtypes == [str(dtype).removeprefix("torch.")]
    assert str(model.tensors()["0.weight"].dtype) == str(dtype).removeprefix("torch.")


def test_blocks_without_gradients_are_part_of_the_graph(tmp_path: Path) -> None:
    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                wave = (x * 2).cos()
                raw = mask
            return {"wave": self.inner(x) * wave, "mask": raw + 1}

    x, mask = torch.randn(3, 4), torch.ones(3, 4)
    shapes = {"x": {0: Dim("batch")}, "mask": {0: Dim("batch")}}
    program = export(Rotary(), (x,), {"mask": mask}, dynamic_shapes=shapes)
    assert "set_grad" in str(program.graph)
    save(program, path := tmp_path / "rotary.pt2")
    model = read(path, Limits())
    found, expected = model.module(x, mask), program.module()(x, mask=mask)
    torch.testing.assert_close(found, tuple(expected.values()))
    written = torch.export.load(model.write(tmp_path, "again")[0])
    torch.testing.assert_close(written.module()(x, mask=mask), expected)


def test_an_input_that_the_network_changes_stays_what_it_was(tmp_path: Path) -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x[:, 0] = 0
            return self.inner(x)

    x = torch.randn(3, 4)
    model = imported(tmp_path, Changing().eval(), (x.clone(),))
    kept = x.clone()
    found = model.module(x)
    torch.testing.assert_close(x, kept)
    zeroed = x.clone()
    zeroed[:, 0] = 0
    torch.testing.assert_close(found, model.module.inner(zeroed))


def test_a_weight_called_like_a_part_of_a_layer_finds_another_place(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3, bias=False)
            self.head.in_features = nn.Linear(4, 4, bias=False)
            self.steps = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.steps(self.head(self.head.in_features(x)))

    module, x = Odd().eval(), torch.randn(3, 4)
    model = imported(tmp_path, module, (x,))
    torch.testing.assert_close(model.module(x), module(x))
    assert set(model.weight_names.values()) == set(module.state_dict())
    assert [layer.kind for layer in model.facts.layers] == ["Linear"] * 3


def test_the_registry_takes_the_archive_for_what_it_is(tmp_path: Path) -> None:
    module, inputs = cnn()
    path = exported(tmp_path, module.eval(), inputs).rename(tmp_path / "upload")
    assert read_model(path, Limits()).facts.format == "pt2"


def test_what_older_versions_leave_out_of_the_document_may_be_missing(tmp_path: Path) -> None:
    module, inputs = cnn()
    parts = members(exported(tmp_path, module.eval(), inputs))
    document = json.loads(parts["models/model.json"])
    document["schema_version"]["minor"] = 14
    for key in ("guards_code", "torch_version"):
        del document[key]
    for key in ("metadata", "treespec_namedtuple_fields"):
        del document["graph_module"][key]
    for node in document["graph_module"]["graph"]["nodes"]:
        del node["name"], node["is_hop_single_tensor_return"]
    parts["models/model.json"] = json.dumps(document).encode()
    del parts["byteorder"]
    model = read(archive(tmp_path / "old.pt2", parts), Limits())
    torch.testing.assert_close(model.module(*inputs), module(*inputs))


def test_an_export_from_a_gpu_is_read_without_one_and_keeps_its_device(tmp_path: Path) -> None:
    module, inputs = tied()
    parts = members(exported(tmp_path, module.eval(), inputs))
    cpu, gpu = b'{"type": "cpu", "index": null}', b'{"type": "cuda", "index": 0}'
    there = {name: data.replace(cpu, gpu) for name, data in parts.items()}
    model = read(archive(tmp_path / "gpu.pt2", there), Limits())
    torch.testing.assert_close(model.module(*inputs), module(*inputs))
    written = members(model.write(tmp_path, "again")[0])["models/model.json"]
    assert b'{"type":"cuda","index":0}' in written
    assert b'"cpu"' not in written


def test_inner_normalisations_are_those_that_check_their_sizes(tmp_path: Path) -> None:
    class Norms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1)
            self.norms = nn.Sequential(
                nn.GroupNorm(2, 4),
                nn.GroupNorm(2, 4, affine=False),
                nn.InstanceNorm2d(4),
                nn.BatchNorm2d(4, track_running_stats=False),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.norms(self.a(x)))

    def lies(document: Any) -> None:
        for node in graph(document)["nodes"]:
            for given in node["inputs"] if "group_norm" in node["target"] else ():
                given["kind"] = 2
                if given["name"] in ("N", "HxW"):
                    given["arg"] = {"as_int": 10**6}

    module, x = Norms().eval(), torch.randn(3, 2, 4, 4)
    source = exported(tmp_path, module, (x,), core=True, free=False)
    model = read(changed(source, tmp_path / "lies.pt2", "models/model.json", lies), Limits())
    assert not any("native" in str(step.function) for step in model.module.steps if step.function)
    torch.testing.assert_close(model.module(x), module(x))
