"""Pruned torch.export archives: the same program with other numbers, for plain torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.formats.pt2 import Pt2Model, read
from pruning.loop import prune
from pruning.spec import default_spec
from tests.pruning.formats.pt2_cases import CASES, archive, cnn, exported, members, tied

LOAD = """
import sys, torch
for folder in sys.argv[1:]:
    program = torch.export.load(folder + "/pruned.pt2")
    torch.save(program.module()(*torch.load(folder + "/inputs.pt")), folder + "/outputs.pt")
"""


def pruned(path: Path, inputs: tuple[Tensor, ...]) -> tuple[Pt2Model, dict[str, Tensor]]:
    """Reads, takes 60 % layer by layer without labels, and puts the result into the model."""
    model = read(path, Limits())
    generator = torch.Generator().manual_seed(1)
    arrays = {}
    for fact, x in zip(model.facts.inputs, inputs, strict=True):
        shape = (24, *x.shape[1:])
        whole = torch.randint(0, 20, shape, generator=generator)
        arrays[fact.name] = (
            torch.randn(shape, generator=generator) if x.is_floating_point() else whole
        )
    spec = default_spec(labelled=False) | {
        "target": {"sparsity": 0.6},
        "trust": {"checks": False},
    }
    outcome = prune(model.module, ArrayData(arrays), spec, facts=model.facts)
    model.module = outcome.module
    assert outcome.report.sparsity.removed == round(0.6 * outcome.report.sparsity.total)
    return model, outcome.masks


Result = tuple[Pt2Model, dict[str, Tensor], tuple[Tensor, ...], Path]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Each network pruned and written; one fresh process has loaded and run all of them."""
    found: dict[str, Result] = {}
    for name, free in [("cnn", False), ("tied", True), ("recurrent", True)]:
        folder = tmp_path_factory.mktemp(name)
        module, inputs = CASES[name]()
        model, masks = pruned(exported(folder, module.eval(), inputs, free=free), inputs)
        assert model.write(folder, "pruned") == [folder / "pruned.pt2"]
        torch.save(inputs, folder / "inputs.pt")
        found[name] = model, masks, inputs, folder
    folders = [str(folder) for *_, folder in found.values()]
    subprocess.run([sys.executable, "-c", LOAD, *folders], check=True, capture_output=True)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_fresh_process_computes_what_the_pruned_module_computes(
    results: dict[str, Result], name: str
) -> None:
    model, _, inputs, folder = results[name]
    found = torch.load(folder / "outputs.pt")
    torch.testing.assert_close(found, model.module(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_written_file_reads_as_the_pruned_module(results: dict[str, Result], name: str) -> None:
    model, masks, inputs, folder = results[name]
    again = read(folder / "pruned.pt2", Limits())
    torch.testing.assert_close(again.module(*inputs), model.module(*inputs))
    assert again.skeleton() == model.skeleton()
    tensors = again.tensors()
    for path, mask in masks.items():
        name = model.weight_names[path]
        kept = mask.T if name in model.lowered.transposed else mask
        assert not tensors[name][~kept.numpy()].any()


def test_an_export_in_train_mode_comes_back_in_train_mode(tmp_path: Path) -> None:
    module, inputs = cnn()
    model = read(exported(tmp_path, module.train(), inputs), Limits())
    with torch.no_grad():
        model.module.stem.weight[0] = 0
    again = read(model.write(tmp_path, "pruned")[0], Limits())
    torch.testing.assert_close(again.module(*inputs), model.module(*inputs))
    program = torch.export.load(tmp_path / "pruned.pt2")
    trains = [n.args[5] for n in program.graph.nodes if "batch_norm" in str(n.target)]
    assert trains == [True]


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    module, inputs = tied()
    path = exported(tmp_path, module.eval(), inputs)
    files = [read(path, Limits()).write(tmp_path, name)[0].read_bytes() for name in "ab"]
    assert files[0] == files[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_unchanged_numbers_come_back_bit_by_bit_in_their_own_type(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    module, inputs = cnn()
    path = exported(tmp_path, module.eval().to(dtype), (inputs[0].to(dtype),), free=False)
    model = read(path, Limits())
    before, after = members(path), members(model.write(tmp_path, "again")[0])
    stored = [name for name in before if "/weight_" in name]
    assert stored
    assert all(before[name] == after[name] for name in stored)


def test_numbers_the_files_type_cannot_hold_are_refused_by_name(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 2)).half().eval()
    model = read(exported(tmp_path, module, (torch.randn(3, 4).half(),)), Limits())
    with torch.no_grad():
        model.module.get_parameter("0.weight")[0, 0] = 1e6
    with pytest.raises(SecateurError) as caught:
        model.write(tmp_path, "again")
    assert (caught.value.code, caught.value.where) == ("weights_non_finite", "0.weight")


def test_tensors_that_are_parts_of_one_payload_keep_their_places(tmp_path: Path) -> None:
    whole = torch.randn(2, 3, 4)

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3, bias=False), nn.Linear(3, 4, bias=False)
            self.a.weight = nn.Parameter(whole[0])
            self.b.weight = nn.Parameter(whole[1].t())

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    x = torch.randn(3, 4)
    path = exported(tmp_path, Parts().eval(), (x,))
    assert sum("/weight_" in name for name in members(path)) == 1
    model = read(path, Limits())
    with torch.no_grad():
        model.module.b.weight[0, 1] = 7
    program = torch.export.load(model.write(tmp_path, "again")[0])
    torch.testing.assert_close(program.module()(x), model.module(x))
    assert program.state_dict["b.weight"].stride() == (1, 4)
    np.testing.assert_array_equal(model.tensors()["a.weight"], whole[0].numpy())


def test_sample_inputs_traces_and_guards_are_left_out_and_extra_files_stay(tmp_path: Path) -> None:
    module, inputs = cnn()
    parts = members(exported(tmp_path, module.eval(), inputs))
    assert b"pt2_cases.py" in parts["models/model.json"]
    source = archive(tmp_path / "extra.pt2", parts | {"extra/classes.txt": b"cat dog"})
    files = members(read(source, Limits()).write(tmp_path, "again")[0])
    assert files["data/sample_inputs/model.pt"] == b""
    assert files["extra/classes.txt"] == b"cat dog"
    assert b"pt2_cases.py" not in files["models/model.json"]
    assert b'"guards_code":[]' in files["models/model.json"]
    found = {"classes.txt": ""}
    torch.export.load(tmp_path / "again.pt2", extra_files=found)
    assert found == {"classes.txt": "cat dog"}
