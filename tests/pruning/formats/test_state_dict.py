"""State dicts as torch.save writes them: what is read, and that torch reads what is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pruning.errors import SecateurError
from pruning.formats.architecture import export, read
from pruning.formats.limits import Limits
from pruning.formats.safetensors import Arrays, read_header
from pruning.formats.state_dict import convert, is_state_dict, read_state_dict, rewrite

LIMITS = Limits()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()


def states() -> dict[str, Any]:
    module = network()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    shared = torch.randn(12)
    return {
        "plain": module.state_dict(),
        "parameters": dict(module.named_parameters()),
        "half": module.half().state_dict(),
        "checkpoint": {
            "epoch": 3,
            "lr": 1e-3,
            "name": "net",
            "best": None,
            "done": True,
            "state_dict": module.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        "views": {
            "turned": torch.randn(4, 6).t(),
            "part": shared[2:5],
            "other part": shared[6:].reshape(2, 3),
            "brain": torch.randn(3).bfloat16(),
            "empty": torch.zeros(0, 3),
            "scalar": torch.tensor(2.5, dtype=torch.float64),
            "counts": torch.arange(5),
            "flags": torch.tensor([True, False]),
        },
    }


def tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = state.get("state_dict", state)
    return found


@pytest.mark.parametrize("name", states())
@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_are_those_that_torch_saved(name: str, protocol: int, tmp_path: Path) -> None:
    saved = states()[name]
    path = tmp_path / "m.pt"
    torch.save(saved, path, pickle_protocol=protocol)
    assert is_state_dict(path)
    state = read_state_dict(path, LIMITS)
    convert(state, tmp_path / "m.safetensors", LIMITS)
    converted = Arrays(tmp_path / "m.safetensors", read_header(tmp_path / "m.safetensors", LIMITS))
    assert list(state.tensors) == list(tensors(saved)) == list(converted)
    for key, tensor in tensors(saved).items():
        for array in (state.array(key), converted[key]):
            assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")
            assert np.array_equal(array.astype(np.float64), tensor.detach().double().numpy())


@pytest.mark.parametrize("name", states())
def test_torch_reads_what_is_written_and_all_else_is_kept(name: str, tmp_path: Path) -> None:
    saved = states()[name]
    source, target, again = (tmp_path / f"{n}.pt" for n in "abc")
    torch.save(saved, source)
    state = read_state_dict(source, LIMITS)
    key = next(iter(state.tensors))
    rewrite(state, target, {key: np.zeros_like(state.array(key))})
    rewrite(state, again, {key: np.zeros_like(state.array(key))})
    assert target.read_bytes() == again.read_bytes()
    for mapped in (False, True):
        loaded = torch.load(target, weights_only=True, mmap=mapped)
        assert list(loaded) == list(saved)
        held, before = tensors(loaded), tensors(saved)
        assert not held[key].any()
        for other in set(before) - {key}:
            assert torch.equal(held[other], before[other])
            assert held[other].stride() == before[other].stride()
    if name == "checkpoint":
        assert loaded["epoch"] == 3
        assert loaded["optimizer"]["state"].keys() == saved["optimizer"]["state"].keys()


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin"])
def test_with_its_architecture_it_is_a_model(suffix: str, tmp_path: Path) -> None:
    module = network()
    folder, out = tmp_path / "in", tmp_path / "out"
    out.mkdir()
    export(module, (torch.randn(2, 3),), folder)
    (folder / "model.safetensors").unlink()
    saved = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save({"epoch": 1, "model": saved}, folder / f"net.{suffix}")
    imported = read(folder, LIMITS)
    x = torch.randn(3, 3)
    assert torch.equal(imported.module(x), module(x))
    assert imported.weight_names["0.weight"] == "module.0.weight"
    with torch.no_grad():
        imported.module.get_parameter("0.weight")[0] = 0
    written = imported.write(out, "net")
    assert sorted(p.name for p in written) == ["architecture.json", f"net.{suffix}"]
    loaded = torch.load(out / f"net.{suffix}", weights_only=True)
    assert loaded["epoch"] == 1
    assert not loaded["model"]["module.0.weight"][0].any()
    assert torch.equal(loaded["model"]["module.3.weight"], module.state_dict()["3.weight"])
    assert read(out, LIMITS).skeleton() == imported.skeleton()


def test_tied_weights_saved_twice_are_written_twice(tmp_path: Path) -> None:
    from tests.pruning.formats.architecture_cases import Tied

    module = Tied().eval()
    folder, out = tmp_path / "in", tmp_path / "out"
    out.mkdir()
    export(module, (torch.randint(0, 20, (2, 4)),), folder)
    (folder / "model.safetensors").unlink()
    torch.save(module.state_dict(), folder / "net.pt")
    imported = read(folder, LIMITS)
    with torch.no_grad():
        imported.module.get_parameter("head.weight")[3, 4] = 0
    imported.write(out, "net")
    loaded = torch.load(out / "net.pt", weights_only=True)
    assert loaded["head.weight"][3, 4] == loaded["embedding.weight"][3, 4] == 0


def test_alone_it_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "net.pt")
    with pytest.raises(SecateurError) as caught:
        read(tmp_path / "net.pt", LIMITS)
    assert caught.value.code == "unsupported_format"
    assert "secateur export" in (caught.value.hint or "")


def test_a_whole_module_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "net.pt")
    with pytest.raises(SecateurError, match=r"torch\.nn\.modules\.container\.Sequential"):
        read_state_dict(tmp_path / "net.pt", LIMITS)


def test_a_file_of_old_versions_says_how_to_save_it_again(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(SecateurError, match=r"torch\.save") as caught:
        read_state_dict(path, LIMITS)
    assert caught.value.code == "unsupported_format"


def test_more_numbers_than_allowed_are_refused_unread(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "net.pt")
    with pytest.raises(SecateurError) as caught:
        read_state_dict(tmp_path / "net.pt", Limits(parameters=999))
    assert caught.value.code == "model_too_large"
