import json

import numpy as np
import pytest

from pruning.data.kinds import check_dataset, load_dataset
from pruning.data.text import tokenised
from pruning.errors import SecateurError
from pruning.facts import TargetFact
from pruning.formats.limits import Limits
from tests.pruning.data.models import Words, model

TOKENS = {"input_ids": ("int64", ["n", "t"]), "attention_mask": ("int64", ["n", "t"])}


@pytest.fixture
def write(tmp_path):
    def write(*lines, ends="\n"):
        path = tmp_path / "data.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_bytes((ends.join(texts) + ends).encode())
        return path

    return write


def refused(call, code, text=""):
    with pytest.raises(SecateurError) as caught:
        call()
    assert caught.value.code == code, caught.value
    assert text in str(caught.value)


def test_texts_with_named_classes_are_told_and_tokenised(write):
    path = write(
        {"text": "a bb ccc", "label": "spam"},
        {"text": "ä", "label": "ham"},
        {"text": "a bb", "label": "spam"},
    )
    found = check_dataset(path)
    assert (found.format, found.samples, found.text, found.pairs) == ("jsonl", 3, True, False)
    assert (found.longest_text, found.arrays) == (8, [])
    assert found.target == TargetFact(dtype="int64", shape=[3], classes=2, names=["ham", "spam"])
    data = load_dataset(path, model(TOKENS, ["n", 2], tokenizer=Words()))
    assert list(data.inputs) == ["input_ids", "attention_mask"]
    assert data.inputs["input_ids"].tolist() == [[1, 2, 3], [99, 99, 1], [99, 1, 2]]
    assert data.inputs["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert data.target.tolist() == [1, 0, 1]


def test_names_that_are_numbers_are_the_classes_themselves(write):
    path = write({"text": "a", "label": "7"}, {"text": "b", "label": "02"})
    assert check_dataset(path).target == TargetFact(dtype="int64", shape=[2], classes=8)
    data = load_dataset(path, model(TOKENS, ["n", 9], tokenizer=Words()))
    assert data.target.tolist() == [7, 2]


def test_texts_without_labels_are_their_own_for_next_token_prediction(write):
    path = write({"text": "a bb"}, {"text": "a bb ccc"})
    assert check_dataset(path).target is None
    causal = model(TOKENS, ["n", "t", 100], tokenizer=Words())
    assert load_dataset(path, causal).target.tolist() == [[-100, 1, 2], [1, 2, 3]]
    # Outputs of another kind have no use for them.
    for output in (["n", 50], ["n", "t", 2]):
        assert load_dataset(path, model(TOKENS, output, tokenizer=Words())).target is None


def test_padding_is_told_apart_also_where_the_model_takes_no_mask(write):
    path = write({"text": "a bb"}, {"text": "a bb ccc"})
    one = model({"input_ids": ("int64", ["n", "t"])}, ["n", "t", 100], tokenizer=Words())
    data = load_dataset(path, one)
    assert list(data.inputs) == ["input_ids"]
    assert data.target.tolist() == [[-100, 1, 2], [1, 2, 3]]


def test_pairs_go_to_the_tokenizer_together(write):
    path = write({"text": "a", "text_pair": "bb ccc", "label": 0})
    assert check_dataset(path).pairs
    data = load_dataset(path, model(TOKENS, ["n", 2], tokenizer=Words()))
    assert data.inputs["input_ids"].tolist() == [[1, 2, 3]]


def test_one_long_text_among_many_short_ones_is_no_reason_for_gigabytes():
    texts = ["a"] * 30_000 + ["a " * 3_000]
    refused(lambda: tokenised(texts, Words(3_000), Limits()), "data_too_large", "1440048000 bytes")


def test_texts_by_the_thousand_are_padded_alike(write):
    rng = np.random.default_rng(0)
    words = ["a" * int(n) for n in rng.integers(1, 30, 40)]
    texts = [" ".join(words[: int(n)]) for n in rng.integers(1, 40, 1500)]
    path = write(*({"text": text} for text in texts))
    tokenizer = Words()
    got = load_dataset(path, model(TOKENS, tokenizer=tokenizer)).inputs
    for name, whole in Words()(texts).items():
        np.testing.assert_array_equal(got[name].numpy(), whole)
    assert tokenizer.calls < 2 * -(-1500 // 256) + 12


def test_the_longest_in_tokens_may_be_short_in_letters(write):
    texts = ["a" * 400 + " b"] * 300 + ["a b c d e"] + ["aaaa"] * 300
    path = write(*({"text": text} for text in texts))
    got = load_dataset(path, model(TOKENS, tokenizer=Words())).inputs["input_ids"]
    np.testing.assert_array_equal(got.numpy(), Words()(texts)["input_ids"])


def test_tokens_are_priced_before_they_are_made(write):
    path = write({"text": "a " * 1000}, *({"text": "a"} for _ in range(1000)))
    one = model(TOKENS, tokenizer=Words())
    refused(
        lambda: load_dataset(path, one, Limits(unpacked_bytes=8_000_000)),
        "data_too_large", "tokens of all texts take 16016000",
    )  # fmt: skip
    assert load_dataset(path, model(TOKENS, tokenizer=Words(100)), Limits(unpacked_bytes=8_000_000))


def test_a_model_without_tokenizer_takes_no_texts(write):
    path = write({"text": "a"})
    refused(lambda: load_dataset(path, model(TOKENS)), "data_names", "tokenizer.json")


def test_a_failing_tokenizer_is_named(write):
    def broken(texts):
        raise RuntimeError("no")

    one = model(TOKENS, tokenizer=broken)
    refused(lambda: load_dataset(write({"text": "a"}), one), "data_unreadable", "RuntimeError")


def test_a_text_without_tokens_is_refused(write):
    path = write({"text": "a"}, {"text": "b"})
    one = model(TOKENS, tokenizer=Words(0))
    refused(lambda: load_dataset(path, one), "data_empty")


def test_numbers_by_input_name(write):
    path = write(
        {"x": [[1, 2], [3, 4]], "n": 5, "label": 0.5},
        "",
        {"x": [[0.5, 2], [3, 4]], "n": 6, "label": 1},
        ends="\r\n",
    )
    found = check_dataset(path)
    assert {a.name: (a.dtype, a.shape) for a in found.arrays} == {
        "x": ("float64", [2, 2, 2]),
        "n": ("int64", [2]),
    }
    assert found.target == TargetFact(dtype="float64", shape=[2])
    assert not found.text
    # Whole numbers are read as floating ones where the model takes these.
    inputs = {"n": ("float32", ["b"]), "x": ("float32", ["b", 2, 2])}
    data = load_dataset(path, model(inputs))
    assert data.inputs["n"].tolist() == [5.0, 6.0]
    assert data.inputs["x"][1].tolist() == [[0.5, 2], [3, 4]]
    assert data.target.tolist() == [0.5, 1.0]


def test_labels_may_be_lists(write):
    path = write({"text": "a", "target": [0, -100]}, {"text": "b", "target": [3, 1]})
    found = check_dataset(path).target
    assert found == TargetFact(dtype="int64", shape=[2, 2], classes=4, ignored=True)


@pytest.mark.parametrize(
    ("lines", "code", "text"),
    [
        ([{"text": "a", "label": 0}, {"text": "b"}], "target_invalid", "Line 2"),
        ([{"text": "a", "label": 0}, {"text": "b", "label": "c"}], "target_invalid", "Line 2"),
        ([{"text": "a"}, {"text": "b", "label": 1}], "target_invalid", "Line 2"),
        ([{"text": "a", "label": ""}], "target_invalid", "class name"),
        ([{"text": "a", "label": True}], "data_dtype", "Line 1"),
        ([{"text": "a", "label": None}], "data_dtype", "label"),
        ([{"text": "a", "label": 1, "target": 1}], "data_unreadable", "both"),
        ([{"text": "a", "lable": 1}], "data_unreadable", "'lable'"),
        ([{"text": "a"}, {"text": " "}], "data_unreadable", "Line 2"),
        ([{"text": 3}], "data_unreadable", "text is empty or no text"),
        ([{"text": "a"}, {"text": "a", "text_pair": "b"}], "data_unreadable", "first line"),
        ([{"x": 1}, {"y": 1}], "data_unreadable", "first line"),
        ([{"x": 1}, {"x": [1]}], "data_shape", "Line 2"),
        ([{"x": [[1], [1, 2]]}], "data_unreadable", "'x'"),
        ([{"x": [1, "2"]}], "data_dtype", "'x'"),
        ([{"x": {"y": 1}}], "data_dtype", "'x'"),
        ([{"x": 10**30}], "data_dtype", "'x'"),
        ([{"label": 1}], "data_unreadable", "0 fields"),
        ([{"text": "a"}, "[1]"], "data_unreadable", "no JSON object"),
        ([{"text": "a"}, "{"], "data_unreadable", "Line 2"),
    ],
)  # fmt: skip
def test_lines_that_are_not_read(write, lines, code, text):
    refused(lambda: check_dataset(write(*lines)), code, text)


def test_limits(write):
    path = write({"text": "a" * 50}, {"text": "b"})
    refused(lambda: check_dataset(path, Limits(line_bytes=40)), "data_too_large", "Line 1")
    refused(lambda: check_dataset(path, Limits(lines=1)), "data_too_large", "1 lines")
    refused(lambda: check_dataset(path, Limits(data_bytes=9)), "data_too_large")
    refused(lambda: check_dataset(path, Limits(unpacked_bytes=50)), "data_too_large")
    # In memory a text takes more than its characters, and a short one most of it for itself.
    refused(lambda: check_dataset(path, Limits(unpacked_bytes=200)), "data_too_large")
    assert check_dataset(path, Limits(unpacked_bytes=300, line_bytes=90)).bytes == 51
