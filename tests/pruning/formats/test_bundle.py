"""Files that belong together come as a folder, a zip or a tar; no name in them leads anywhere."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from pruning.errors import SecateurError
from pruning.formats.bundle import first_names, open_bundle, pack
from pruning.formats.limits import Limits

FILES = {"config.json": b"{}", "sub/weights.bin": bytes(range(256)) * 50, "empty": b""}


def folder(root: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def refusal(path: Path, limits: Limits | None = None) -> SecateurError:
    with pytest.raises(SecateurError) as caught:
        read_all(path, limits or Limits())
    return caught.value


def read_all(path: Path, limits: Limits) -> None:
    with open_bundle(path, limits) as bundle:
        for name in bundle.names:
            bundle.read(name, 1 << 30)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "gnu tar", "stored zip"])
@pytest.mark.parametrize("prefix", ["", "top/"])
def test_the_same_files_however_they_come(tmp_path: Path, kind: str, prefix: str) -> None:
    files = {prefix + name: content for name, content in FILES.items()}
    path = tmp_path / "upload"
    if kind == "folder":
        folder(path, files)
    elif kind.endswith("zip"):
        zipped(path, files, zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED)
    else:
        tarred(path, files, tarfile.GNU_FORMAT if "gnu" in kind else tarfile.PAX_FORMAT)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_bundle(path, Limits()) as bundle:
        assert bundle.prefix == prefix
        assert {name: bundle.read(name, 1 << 20) for name in bundle.names} == FILES
        assert bundle.sizes == {name: len(content) for name, content in FILES.items()}
        assert bundle.path("sub/weights.bin", scratch).read_bytes() == FILES["sub/weights.bin"]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_packing_gives_the_same_bytes_for_the_same_files(tmp_path: Path, kind) -> None:
    root = folder(tmp_path / "in")
    members = {name: root / name for name in FILES}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    made = [
        pack(kind, tmp_path / n if kind == "folder" else tmp_path / n / "m", members, "top/")
        for n in ("a", "b")
    ]
    assert [p.read_bytes() for p in made[0]] == [p.read_bytes() for p in made[1]]
    with open_bundle(tmp_path / "a" if kind == "folder" else made[0][0], Limits()) as bundle:
        assert {name: bundle.read(name, 1 << 20) for name in bundle.names} == FILES
        assert (bundle.kind, bundle.prefix) == (kind, "top/")


@pytest.mark.parametrize("pack_", [zipped, tarred])
@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "a/../../b", "a\\b", "c:evil", "a//b", "a\nb", "./../x", "x" * 300],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, pack_, name: str) -> None:
    error = refusal(pack_(tmp_path / "upload", {name: b"x", "y": b"z"}))
    assert error.code == "model_unreadable"
    assert "plain relative" in error.message


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "upload.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    assert "link or a device" in refusal(path).message


def test_a_link_in_a_zip_or_a_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "upload.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "link or a device" in refusal(path).message
    root = folder(tmp_path / "f")
    (root / "link").symlink_to("/etc/passwd")
    assert "link or a device" in refusal(root).message


@pytest.mark.parametrize("pack_", ["zip", "tar"])
def test_two_members_of_one_name_are_refused(tmp_path: Path, pack_: str) -> None:
    path = tmp_path / "upload"
    if pack_ == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", "1")
            archive.writestr("b", "2")
        path.write_bytes(path.read_bytes().replace(b"b", b"a"))
    else:
        with tarfile.open(path, "w") as archive:
            for content in (b"1", b"2"):
                info = tarfile.TarInfo("a")
                info.size = 1
                archive.addfile(info, io.BytesIO(content))
    assert "two members" in refusal(path).message


def test_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "upload.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), b"x")
    assert refusal(path).code == "model_unreadable"


def test_a_bomb_is_refused_from_its_headers(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb.zip", {"zeros": b"\0" * (64 << 20)})
    assert path.stat().st_size < 100_000
    error = refusal(path)
    assert error.code == "model_too_large"
    assert "bomb" in error.message


def test_a_zip_that_unpacks_to_more_than_its_header_says_ends_there(tmp_path: Path) -> None:
    path = zipped(tmp_path / "lie.zip", {"a": b"x" * 10_000})
    raw = bytearray(path.read_bytes())
    central = raw.rindex(b"PK\x01\x02")
    raw[central + 24 : central + 28] = (100).to_bytes(4, "little")
    path.write_bytes(raw)
    assert refusal(path).code == "model_unreadable"


@pytest.mark.parametrize("cut", [0.1, 0.4, 0.6])
@pytest.mark.parametrize("pack_", [zipped, tarred])
def test_an_archive_cut_short_is_refused(tmp_path: Path, pack_, cut: float) -> None:
    path = pack_(tmp_path / "upload", FILES)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * cut)])
    assert refusal(path).code == "model_unreadable"


def test_a_tar_with_a_sparse_or_resized_member_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "upload.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"size": "99999999999"}
        archive.addfile(info, io.BytesIO(b""))
    assert refusal(path).code == "model_unreadable"


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    files = {f"f{i}": b"" for i in range(20)}
    few = Limits(members=10)
    for path in (
        zipped(tmp_path / "z", files),
        tarred(tmp_path / "t", files),
        folder(tmp_path / "d", files),
    ):
        assert refusal(path, few).code == "model_too_large"


def test_a_file_over_its_limit_is_not_read(tmp_path: Path) -> None:
    with (
        open_bundle(folder(tmp_path / "f"), Limits()) as bundle,
        pytest.raises(SecateurError) as caught,
    ):
        bundle.read("sub/weights.bin", 100)
    assert caught.value.code == "model_too_large"


def test_what_archivers_add_is_left_out(tmp_path: Path) -> None:
    files = {"a": b"1", "__MACOSX/._a": b"x", ".DS_Store": b"y", "b/._c": b"z"}
    with open_bundle(zipped(tmp_path / "z", files), Limits()) as bundle:
        assert bundle.names == ["a"]


def test_copies_of_members_never_meet(tmp_path: Path) -> None:
    files = {"a/b": b"1", "a__b": b"2", "c/a__b": b"3", "\U0001f600" * 190: b"4"}
    with open_bundle(zipped(tmp_path / "z", files), Limits()) as bundle:
        copies = {name: bundle.path(name, tmp_path) for name in bundle.names}
    assert {name: path.read_bytes() for name, path in copies.items()} == files


def test_the_first_names_of_a_tar_are_told_without_the_rest(tmp_path: Path) -> None:
    path = tarred(tmp_path / "t", {f"{i:02}": b"x" for i in range(20)})
    path.write_bytes(path.read_bytes()[: 8 * 1024])  # cut off behind the eighth
    assert first_names(path, 3) == ["00", "01", "02"]
    with pytest.raises(SecateurError) as caught:
        first_names(path, 12)
    assert caught.value.code == "model_unreadable"
