import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pruning.data.kinds import check_dataset, load_dataset
from pruning.errors import SecateurError
from pruning.facts import TargetFact
from pruning.formats.limits import Limits
from tests.pruning.data.models import Words, model

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5000, 3)).astype(np.float32)
N = RNG.integers(0, 9, 5000)


@pytest.fixture
def write(tmp_path):
    def write(columns, **options):
        path = tmp_path / "data.parquet"
        pq.write_table(
            columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options
        )
        return path

    return write


def refused(call, code, text=""):
    with pytest.raises(SecateurError) as caught:
        call()
    assert caught.value.code == code, caught.value
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "none", "use_dictionary": False},
        {"compression": "zstd", "data_page_version": "2.0", "row_group_size": 1700},
        {"compression": "gzip", "data_page_size": 512},
    ],
)
def test_numbers_and_lists_come_back_as_saved(write, options):
    flat = pa.array(X.ravel())
    path = write(
        {
            "x": pa.FixedSizeListArray.from_arrays(flat, 3),
            "v": pa.array(X.tolist(), pa.list_(pa.float64())),
            "m": pa.array(X.reshape(5000, 3, 1).tolist()),
            "n": N.astype(np.int16),
            "b": N > 3,
            "label": N,
        },
        **options,
    )
    found = check_dataset(path)
    assert (found.format, found.samples) == ("parquet", 5000)
    assert [(a.name, a.dtype, a.shape) for a in found.arrays] == [
        ("x", "float32", [5000, 3]),
        ("v", "float64", [5000, 3]),
        ("m", "float64", [5000, 3, 1]),
        ("n", "int16", [5000]),
        ("b", "bool", [5000]),
    ]
    assert found.target == TargetFact(dtype="int64", shape=[5000], classes=9)
    assert found.bytes == 5000 * (12 + 24 + 24 + 2 + 1 + 8)
    data = load_dataset(
        path,
        model(
            {
                "n": ("int64", ["k"]),
                "x": ("float32", ["k", 3]),
                "v": ("float32", ["k", 3]),
                "m": ("float32", ["k", 3, 1]),
                "b": ("bool", ["k"]),
            }
        ),
    )
    assert list(data.inputs) == ["n", "x", "v", "m", "b"]
    for name in ("x", "v", "m"):
        np.testing.assert_array_equal(data.inputs[name].numpy().reshape(X.shape), X)
    assert data.inputs["n"].tolist() == N.tolist()
    assert data.inputs["b"].tolist() == (N > 3).tolist()
    assert data.target.tolist() == N.tolist()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_texts_are_those_of_json_lines(write, kind):
    texts = [" ".join("ab"[: 1 + i % 2] for _ in range(1 + i % 4)) for i in range(3000)]
    labels = ["yes" if n > 3 else "no" for n in N[:3000]]
    path = write({"text": pa.array(texts, kind), "label": pa.array(labels, kind)})
    found = check_dataset(path)
    assert (found.text, found.pairs, found.longest_text, found.arrays) == (True, False, 11, [])
    assert found.target == TargetFact(dtype="int64", shape=[3000], classes=2, names=["no", "yes"])
    tokens = {"input_ids": ("int64", ["n", "t"])}
    data = load_dataset(path, model(tokens, ["n", 2], tokenizer=Words()))
    np.testing.assert_array_equal(data.inputs["input_ids"].numpy(), Words()(texts)["input_ids"])
    assert data.target.tolist() == [int(n > 3) for n in N[:3000]]


def test_pairs_of_texts(write):
    path = write({"text_pair": ["b c"], "target": [1], "text": ["a"]})
    assert check_dataset(path).pairs
    tokens = {"attention_mask": ("int64", ["n", "t"])}
    data = load_dataset(path, model(tokens, ["n", 2], tokenizer=Words()))
    assert data.inputs["attention_mask"].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("columns", "code", "text"),
    [
        ({"text": ["a"], "x": [1]}, "data_names", "'x'"),
        ({"text_pair": ["a"]}, "data_names", "text_pair"),
        ({"text": ["a", " "]}, "data_unreadable", "empty"),
        ({"text": ["a", None]}, "data_unreadable", "empty cells"),
        ({"name": ["a"]}, "data_dtype", "'name'"),
        ({"x": [1], "label": [1], "target": [1]}, "data_names", "both"),
        ({"label": [1]}, "data_empty", "labels"),
        ({"x": pa.array([], pa.int64())}, "data_empty", "no row"),
        ({"x": [1], "label": [-1]}, "target_invalid", "-1"),
        ({"x": [1], "label": [True]}, "data_dtype", "bool"),
        ({"x": [b"a"]}, "data_dtype", "binary"),
        ({"x": pa.array([[1], None])}, "data_unreadable", "empty cells"),
        ({"x": pa.array([[[1], [2]], [[1, 2]]])}, "data_shape", "'x'"),
    ],
)
def test_tables_that_are_not_read(write, columns, code, text):
    refused(lambda: check_dataset(write(columns)), code, text)


def test_two_columns_of_one_name(write):
    columns = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    refused(lambda: check_dataset(write(columns)), "data_names", "'x'")


def test_limits(write):
    path = write({"x": X[:, 0], "y": X[:, 1]})
    refused(lambda: check_dataset(path, Limits(arrays=1)), "data_too_large", "2 columns")
    refused(lambda: check_dataset(path, Limits(lines=4999)), "data_too_large", "5000 rows")
    refused(lambda: check_dataset(path, Limits(unpacked_bytes=39_999)), "data_too_large")
    refused(lambda: check_dataset(path, Limits(header_bytes=99)), "data_too_large", "footer")
    path = write({"text": ["a" * 99, "b"]})
    refused(lambda: check_dataset(path, Limits(line_bytes=98)), "data_too_large", "99 bytes")
