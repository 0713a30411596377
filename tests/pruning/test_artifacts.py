"""Names, sizes and digests of delivered files."""

import gzip
import hashlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pruning.artifacts import describe, gzip_size, stem
from pruning.formats.onnx.write import held_tensors


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lenet.onnx", "lenet"),
        ("My digits v2.ONNX", "My digits v2"),
        ("mnist.v1.onnx", "mnist.v1"),
        ("../../etc/passwd", "passwd"),
        ("C:\\models\\net.onnx", "net"),
        ("-rf.onnx", "rf"),
        (".hidden.onnx", "hidden"),
        ("a\x00b\n\u202ec.onnx", "a_b__c"),
        ('<a>:"|?*.onnx', "_a______"),
        ("模型.onnx", "模型"),
        ("", "model"),
        (".onnx", "model"),
        ("...", "model"),
        ("net.pt2", "net"),
        ("bert.tar", "bert"),
        ("bert.v2.zip", "bert.v2"),
    ],
)
def test_the_model_keeps_its_own_name_where_that_is_safe(name, expected):
    assert stem(name) == expected


@given(st.text(max_size=400))
def test_every_name_gives_a_plain_file_name(name):
    made = stem(name)
    assert made
    assert made.isprintable()
    assert not set(made) & set('/\\<>:"|?*')
    assert made[0] not in " .-"
    assert len(f"{made}.sparse.safetensors".encode()) <= 255


def test_sizes_and_digest_are_those_of_the_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"some bytes" * 300_000)
    entry = describe(path, "onnx")
    assert (entry.name, entry.bytes) == ("file", 3_000_000)
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    header = len(gzip.compress(b"", 6, mtime=0))
    assert header < gzip_size(path) == len(gzip.compress(path.read_bytes(), 6, mtime=0))


def test_tensors_are_initialisers_and_constants_of_types_that_can_be_stored():
    weight, text = np.eye(3, dtype=np.float32), np.array([b"a", b"b"], dtype=object)
    constant = helper.make_node(
        "Constant", [], ["c"], value=numpy_helper.from_array(np.arange(4), "inner")
    )
    graph = helper.make_graph(
        [constant, helper.make_node("Gemm", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(text, "t")],
    )
    model: onnx.ModelProto = helper.make_model(graph)
    found = held_tensors(model)
    assert found.keys() == {"w", "c"}
    np.testing.assert_array_equal(found["w"], weight)
    np.testing.assert_array_equal(found["c"], np.arange(4))
