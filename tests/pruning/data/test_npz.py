import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from pruning.data.npz import check, load, read_npz
from pruning.errors import SecateurError
from pruning.facts import ModelFacts, TensorFact
from pruning.formats.limits import Limits

X = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
T = np.array([0, 1, 2, 1, 0, 4])


def facts(*inputs: TensorFact) -> ModelFacts:
    return ModelFacts(
        format="onnx", version="17", outputs=[], layers=[], parameters=0, prunable_parameters=0,
        inputs=list(inputs) or [TensorFact(name="x", dtype="float32", shape=["n", 3, 4])],
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.npz"


def raw(path, *members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), **options)
    return file.getvalue()


def header(shape, descr="<f4"):
    text = str({"descr": descr, "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def refused(call, code, text=""):
    with pytest.raises(SecateurError) as caught:
        call()
    assert caught.value.code == code, caught.value
    assert text in str(caught.value)
    return caught.value


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_saved(path, save):
    arrays = {
        "x": X,
        "fortran": np.asfortranarray(X[:, :2]),
        "big": X.astype(">f8"),
        "half": X.astype(np.float16),
        "flag": T > 1,
        "target": T.astype(np.uint8),
    }
    save(path, **arrays)
    read = read_npz(path)
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert np.array_equal(read[name], array)
        assert read[name].flags.c_contiguous
        assert read[name].dtype == array.dtype.newbyteorder("=")


def test_facts_of_a_dataset(path):
    np.savez(path, x=X, target=T)
    found = check(path)
    assert (found.samples, found.bytes) == (6, X.nbytes + T.nbytes)
    assert [a.model_dump() for a in found.arrays] == [
        {"name": "x", "dtype": "float32", "shape": [6, 3, 4], "samples": 0}
    ]
    assert found.target is not None
    assert (found.target.classes, found.target.dtype) == (5, "int64")
    np.savez(path, x=X)
    assert check(path).target is None
    np.savez(path, x=X, target=X[:, 0])
    assert check(path).target.classes is None


def test_load_orders_and_casts_for_the_model(path):
    np.savez(path, target=T.astype(np.int32), b=T.astype(np.int32), a=X.astype(np.float64))
    a = TensorFact(name="a", dtype="float32", shape=[1, 3, "k"])
    b = TensorFact(name="b", dtype="int64", shape=["n"])
    data = load(path, facts(a, b))
    assert list(data.inputs) == ["a", "b"]
    assert data.inputs["a"].dtype == torch.float32
    assert data.inputs["b"].dtype == data.target.dtype == torch.int64
    assert torch.equal(data.inputs["a"], torch.from_numpy(X))
    half = TensorFact(name="a", dtype="float16", shape=[1, 3, 4])
    assert load(path, facts(half, b)).inputs["a"].dtype == torch.float32


def test_names_that_do_not_match_say_what_was_meant(path):
    np.savez(path, imput=X, target=T)
    wanted = TensorFact(name="input", dtype="float32", shape=["n", 3, 4])
    error = refused(lambda: load(path, facts(wanted)), "data_names", "'imput'")
    assert "is 'imput' meant to be 'input'" in (error.hint or "").lower()
    assert error.details == {"found": ["imput"], "expected": ["input"]}
    np.savez(path, x=X, extra=X)
    refused(lambda: load(path, facts()), "data_names", "'extra'")


def test_shapes_and_types_that_do_not_fit_the_model(path):
    np.savez(path, x=X[:, :2])
    refused(lambda: load(path, facts()), "data_shape", "[N, 3, 4]")
    np.savez(path, x=X.reshape(6, 12))
    refused(lambda: load(path, facts()), "data_shape", "[6, 12]")
    np.savez(path, x=(X * 10).astype(np.uint8))
    refused(lambda: load(path, facts()), "data_dtype", "uint8")
    np.savez(path, x=X.astype(np.float64) * 1e200)
    refused(lambda: load(path, facts()), "data_non_finite", "'x'")
    ids = TensorFact(name="x", dtype="int32", shape=["n"])
    np.savez(path, x=T + 2**40)
    refused(lambda: load(path, facts(ids)), "data_dtype", "int32")


def test_pickled_objects_are_refused_and_never_run(path, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    raw(path, ("x.npy", npy(np.array([Evil()] * 3, dtype=object), allow_pickle=True)))
    refused(lambda: read_npz(path), "data_pickled", "'x'")
    structured = np.zeros(3, dtype=[("a", "O"), ("b", "f4")])
    raw(path, ("x.npy", npy(structured, allow_pickle=True)))
    refused(lambda: read_npz(path), "data_pickled")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("array", [
    np.array(["a"] * 6), np.zeros(6, complex), np.zeros(6, "M8[s]"), np.zeros(6, [("a", "f4")]),
    np.zeros(6, np.longdouble), np.zeros(6, "V4"),
])  # fmt: skip
def test_types_that_are_no_plain_numbers_are_refused(path, array):
    raw(path, ("x.npy", npy(array)))
    refused(lambda: read_npz(path), "data_dtype")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("read", [read_npz, check])
def test_non_finite_numbers_are_refused_by_name(path, value, read):
    x = X.copy()
    x[3, 1, 2] = value
    np.savez(path, ok=X, x=x)
    assert refused(lambda: read(path), "data_non_finite").where == "x"


def test_first_dimensions_must_agree(path):
    np.savez(path, x=X, target=T[:4])
    refused(lambda: check(path), "data_shape", "target 4")
    np.savez(path, x=np.float32(1))
    refused(lambda: check(path), "data_shape", "0 dimensions")


def test_empty_data(path):
    np.savez(path, x=X[:0])
    refused(lambda: check(path), "data_empty")
    np.savez(path)
    refused(lambda: check(path), "data_empty")
    np.savez(path, target=T)
    refused(lambda: check(path), "data_empty", "no array")


def test_labels_below_zero_or_of_type_bool(path):
    np.savez(path, x=X, target=T - 1)
    refused(lambda: check(path), "target_invalid", "-1")
    np.savez(path, x=X, target=T > 0)
    refused(lambda: check(path), "data_dtype")


@pytest.mark.parametrize("name", ["../x.npy", "a/b.npy", "a\\b.npy", "/etc/x.npy", "x\0.npy"])
def test_member_names_with_paths_are_refused(path, name):
    member = zipfile.ZipInfo("placeholder")
    with zipfile.ZipFile(path, "w") as archive:
        member.filename = name
        archive.writestr(member, npy(X))
    refused(lambda: read_npz(path), "data_names")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(path):
    raw(path, ("x.npy", npy(X)), ("x.npy", npy(X)))
    refused(lambda: read_npz(path), "data_names", "'x'")


def test_members_that_are_no_arrays_are_refused(path):
    raw(path, ("x.npy", npy(X)), ("readme.txt", b"hello"))
    refused(lambda: read_npz(path), "data_unreadable", "readme.txt")


def test_compression_methods_other_than_deflate_are_refused(path):
    raw(path, ("x.npy", npy(X)), compression=zipfile.ZIP_LZMA)
    refused(lambda: read_npz(path), "data_unreadable", "deflate")


def test_more_members_than_the_limit(path):
    np.savez(path, **{f"a{i}": X for i in range(5)})
    refused(lambda: read_npz(path, Limits(arrays=4)), "data_too_large", "5 members")


def test_files_and_arrays_over_the_limits(path):
    np.savez(path, x=X)
    refused(lambda: read_npz(path, Limits(data_bytes=10)), "data_too_large")
    refused(lambda: read_npz(path, Limits(unpacked_bytes=X.nbytes - 1)), "data_too_large")
    assert read_npz(path, Limits(unpacked_bytes=X.nbytes))


def peak(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_header_that_promises_terabytes_costs_nothing(path):
    raw(path, ("x.npy", header((1 << 40,)) + b"1234"))
    assert peak(lambda: refused(lambda: read_npz(path), "data_too_large")) < 2e6
    raw(path, ("x.npy", header((1 << 62, 1 << 62))))
    refused(lambda: read_npz(path), "data_too_large")
    raw(path, ("x.npy", header((100,)) + b"1234"))
    refused(lambda: read_npz(path), "data_unreadable", "400 bytes")
    raw(path, ("x.npy", header((-1, 2)) + b"1234"))
    refused(lambda: read_npz(path), "data_unreadable")


def test_a_decompression_bomb_is_refused_with_flat_memory(path):
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as file,
    ):
        size = 64 * 1024 * 1024
        file.write(header((size // 4,)))
        for _ in range(64):
            file.write(bytes(1024 * 1024))
    assert peak(lambda: refused(lambda: read_npz(path), "data_too_large", "bomb")) < 2e6


def test_a_header_that_says_it_is_huge_is_not_read_to_its_end(path):
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as file,
    ):
        file.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", 32 << 20))
        for _ in range(32):
            file.write(b" " * (1 << 20))
    assert peak(lambda: refused(lambda: read_npz(path), "data_unreadable", "header")) < 2e6


def test_a_member_that_unpacks_to_more_than_it_says(path):
    """The size in the directory lies; what the header promises is all that is read."""
    raw(path, ("x.npy", npy(X) + bytes(1 << 20)), compression=zipfile.ZIP_DEFLATED)
    refused(lambda: read_npz(path), "data_unreadable")


def test_checking_holds_one_piece_at_a_time(path):
    np.savez(path, x=np.random.default_rng(0).standard_normal((4_000_000, 2)))
    assert peak(lambda: check(path)) < 8e6


def test_a_directory_that_claims_gigabytes_is_refused(path):
    np.savez(path, x=X)
    data = bytearray(path.read_bytes())
    end = data.rfind(b"PK\x05\x06")
    data[end + 12 : end + 16] = struct.pack("<I", 0x7FFFFFFF)
    path.write_bytes(bytes(data))
    assert peak(lambda: refused(lambda: read_npz(path), "data_unreadable")) < 2e6


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_archives(path, share):
    np.savez(path, x=X, target=T)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(lambda: read_npz(path), "data_unreadable")


def test_flipped_bits_are_noticed(path):
    np.savez_compressed(path, x=X)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))
    refused(lambda: read_npz(path), "data_unreadable")
