"""A folder goes up as one tar of the same bytes each time; what comes back stays in its folder."""

import io
import tarfile
from pathlib import Path

import pytest

from secateur import SecateurError
from secateur._tar import FolderTar, tar_of, unpack, weights_beside


def folder(root: Path) -> Path:
    (root / "1_Pooling").mkdir(parents=True)
    (root / "config.json").write_bytes(b"{}")
    (root / "1_Pooling" / "config.json").write_bytes(b"x" * 1000)
    (root / ("long" * 40)).write_bytes(b"")
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_bytes(b"secret")
    return root


def test_a_folder_is_one_tar_of_known_size_without_hidden_files(tmp_path: Path) -> None:
    tar = FolderTar(folder(tmp_path / "in"))
    content = b"".join(tar.chunks())
    assert len(content) == tar.size
    assert content == b"".join(FolderTar(tmp_path / "in").chunks())
    with tarfile.open(fileobj=io.BytesIO(content)) as made:
        assert made.getnames() == ["1_Pooling/config.json", "config.json", "long" * 40]


def test_what_is_unpacked_is_what_was_packed(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"".join(FolderTar(folder(tmp_path / "in")).chunks()))
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "1_Pooling" / "config.json").read_bytes() == b"x" * 1000
    assert not archive.exists()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
def test_a_tar_that_leads_elsewhere_is_not_unpacked(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(SecateurError) as refused:
        unpack(archive, tmp_path / "out")
    assert refused.value.code == "conflict"
    assert not (tmp_path / "x").exists()


def test_a_link_is_not_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(SecateurError):
        unpack(archive, tmp_path / "out")


def beside(folder: Path, *locations: str) -> Path:
    """A file with entries of external data as protocol buffers write them."""
    entries = (b"\x0a\x08location\x12" + bytes([len(x.encode())]) + x.encode() for x in locations)
    model = folder / "net.onnx"
    model.write_bytes(b"\x08\x08" + b"..".join(entries) + b"end")
    return model


def test_an_onnx_model_goes_up_with_the_files_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    for name in ("net.onnx.data", "w/b.bin", "other.bin"):
        (tmp_path / name).write_bytes(b"x" * 10)
    model = beside(tmp_path, "net.onnx.data", "./w/b.bin", "net.onnx.data", "missing.data")
    assert weights_beside(model) == [tmp_path / "net.onnx.data", tmp_path / "w" / "b.bin"]
    tar = tar_of(model)
    assert tar is not None
    with tarfile.open(fileobj=io.BytesIO(b"".join(tar.chunks()))) as made:
        assert made.getnames() == ["net.onnx", "net.onnx.data", "w/b.bin"]


def test_only_plain_files_beside_a_model_are_sent(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    model = beside(tmp_path / "in", "../secret", str(tmp_path / "secret"), "link", "net.onnx", "")
    assert weights_beside(model) == []
    assert tar_of(model) is None
