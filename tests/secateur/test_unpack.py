"""`secateur unpack` and `secateur.sparse`: files and tensors from a sparse file."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from pruning.formats import containers
from pruning.formats.sparse import pack
from secateur import SecateurError, sparse
from secateur.cli.app import app


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    thin = np.where(random.random((64, 64)) < 0.1, random.standard_normal((64, 64)), 0)
    # `file` is what an argument of numpy.savez is called.
    return {"w": thin.astype(np.float32), "file": np.arange(50.0)}


@pytest.fixture
def packed(tmp_path: Path, tensors: dict[str, np.ndarray]) -> Path:
    (tmp_path / "from" / "sub").mkdir(parents=True)
    files = [tmp_path / "from" / "net.safetensors", tmp_path / "from" / "sub" / "config.json"]
    save_file(tensors, files[0])
    files[1].write_text("{}")
    pack(files, tensors, tmp_path / "net.sparse.safetensors")
    return tmp_path / "net.sparse.safetensors"


def unpack(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["unpack", *map(str, arguments)])


def test_a_folder_gets_the_models_own_files(packed: Path, tmp_path: Path) -> None:
    done = unpack(packed, tmp_path / "to")
    assert done.exit_code == 0, done.output
    for name in ("net.safetensors", "sub/config.json"):
        assert (tmp_path / "to" / name).read_bytes() == (tmp_path / "from" / name).read_bytes()
        assert name in done.stdout.replace("\\", "/")
    assert {p.name for p in (tmp_path / "to").rglob("*")} == {
        "net.safetensors",
        "sub",
        "config.json",
    }


def test_without_a_folder_they_go_where_the_command_runs(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert unpack(packed).exit_code == 0
    assert (tmp_path / "here" / "net.safetensors").exists()


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_file_gets_the_dense_tensors(
    packed: Path, tmp_path: Path, tensors: dict[str, np.ndarray], suffix: str
) -> None:
    out = tmp_path / f"weights.{suffix}"
    done = unpack(packed, out)
    assert done.exit_code == 0, done.output
    assert "2 tensors" in done.stdout
    found = dict(np.load(out)) if suffix == "npz" else load_file(out)
    assert found.keys() == tensors.keys()
    assert all(found[name].tobytes() == tensors[name].tobytes() for name in tensors)


@pytest.mark.parametrize("out", ["to", "weights.npz"])
def test_nothing_is_overwritten_without_force(packed: Path, tmp_path: Path, out: str) -> None:
    assert unpack(packed, tmp_path / out).exit_code == 0
    again = unpack(packed, tmp_path / out)
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert unpack(packed, tmp_path / out, "--force").exit_code == 0


def test_a_file_is_no_folder(packed: Path) -> None:
    assert unpack(packed, packed.parent / "from" / "net.safetensors" / "x").exit_code != 0
    assert unpack(packed, packed.parent / "from" / "sub" / "config.json").exit_code == 2


def test_a_damaged_file_leaves_nothing(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-20] + bytes(20))
    failed = unpack(packed, tmp_path / "to")
    assert isinstance(failed.exception, SecateurError)
    assert failed.exception.code == "unsupported_format"
    assert not [p for p in (tmp_path / "to").rglob("*") if p.is_file() and p.suffix == ".part"]


def test_the_package_reads_and_restores(
    packed: Path, tmp_path: Path, tensors: dict[str, np.ndarray]
) -> None:
    assert sparse.read(str(packed))["w"].tobytes() == tensors["w"].tobytes()
    restored = sparse.restore(str(packed), str(tmp_path / "to"))
    assert [path.read_bytes() for path in restored] == [
        (tmp_path / "from" / "net.safetensors").read_bytes(),
        b"{}",
    ]


def test_a_bitmask_file_of_before_still_unpacks_to_tensors(tmp_path: Path) -> None:
    old = tmp_path / "net.bitmask.safetensors"
    members = {"w#mask": np.array([5], np.uint8), "w#values": np.array([1.5, -2], np.float32)}
    shapes = {"format": "bitmask", "version": 1, "shapes": {"w": [2, 2]}}
    containers.write(old, members, shapes)
    assert unpack(old, tmp_path / "w.npz").exit_code == 0
    assert np.load(tmp_path / "w.npz")["w"].tolist() == [[1.5, 0], [-2, 0]]
    failed = unpack(old, tmp_path / "folder")
    assert isinstance(failed.exception, SecateurError)
    assert "tensors and no files" in failed.exception.message


@pytest.mark.parametrize("absent", ["numpy", "safetensors"])
def test_without_the_packages_it_says_what_to_install(
    packed: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    whole = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == absent else whole(name)
    )
    for read in (sparse.read, lambda path: sparse.restore(path, packed.parent / "to")):
        with pytest.raises(SecateurError) as refused:
            read(packed)
        assert refused.value.code == "package_missing"
        assert "secateur[pruning]" in (refused.value.hint or "")
