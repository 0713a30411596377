"""Hostile tokenizers: refused before they run, or ended with a code in the midst of a call."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.security.samples import SAMPLES, charsmap, environment

Refused = Callable[..., dict[str, Any]]
MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid folder of a small BERT, whose tokenizer is to be spoilt."""
    return SAMPLES["huggingface"].make(tmp_path / "upload")


def spoilt(folder: Path, **changes: Any) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def replace(content: str, *, times: int = 1, **pattern: str) -> dict[str, Any]:
    step = {"type": "Replace", "pattern": pattern, "content": content}
    return {"type": "Sequence", "normalizers": [step] * times}


def added(content: str, count: int = 1) -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True}
    return [{"id": 5 + i, "special": False, "content": content, **flags} for i in range(count)]


def template(tokens: int) -> dict[str, Any]:
    piece = {"SpecialToken": {"id": "x", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*[piece] * tokens, text],
        "pair": [],
        "special_tokens": {"x": {"id": "x", "ids": [0], "tokens": ["x"]}},
    }


LONG_TOKEN = {"type": "TemplateProcessing", "single": [
    {"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [], "special_tokens": {"x": {"id": "x", "ids": [0] * 99_999, "tokens": ["x"] * 99_999}},
}  # fmt: skip
HOSTILE: dict[str, dict[str, Any]] = {
    "doubled twenty times": {"normalizer": replace("aa", String="a", times=20)},
    "doubled, and a word of it": {
        "normalizer": replace("aa", String="a", times=9), "added_tokens": added("a" * 4_000, 20)},
    "words that become long": {
        "normalizer": replace("a" * 900, String="a"), "added_tokens": added("a" * 4_000, 20)},
    "4 MB before each": {"normalizer": {"type": "Prepend", "prepend": "x" * (4 * MIB)}},
    "4 MB for a letter": {"normalizer": replace("x" * (4 * MIB), String="a")},
    "a megabyte for nothing": {"normalizer": replace("x" * MIB, Regex="")},
    "a pattern that matches nothing": {"normalizer": replace("xy" * 999, Regex="q*")},
    "a slow pattern": {"normalizer": replace("", Regex="(a|aa)+$")},
    "a pattern in a sequence of sequences": {
        "normalizer": {"type": "Sequence", "normalizers": [replace("a" * 64, String="a")] * 3}},
    "a character map to a megabyte": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap(b"a" * MIB)}},
    "a character map twice": {"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": charsmap(b"a" * 200)}] * 2}},
    "a mark of many": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}] * 9}},
    "letters of letters": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
    ] * 16}},
    "a hundred thousand tokens around a text": {"post_processor": template(100_000)},
    "a token that is a hundred thousand": {"post_processor": LONG_TOKEN},
    "a text over and over": {"post_processor": {**template(0), "single": [
        {"Sequence": {"id": "A", "type_id": 0}}] * 1_000}},
    "sequences of templates": {
        "post_processor": {"type": "Sequence", "processors": [template(1)] * 50}},
    "more tokens than the network takes": {"post_processor": template(60)},
    "words of a million letters": {"model": {
        "type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "",
        "max_input_chars_per_word": 1_000_000, "vocab": {"a": 0}}},
    "pieces within pieces": {"model": {"type": "Unigram", "unk_id": 0, "byte_fallback": False,
        "vocab": [["a" * i, -1.0] for i in (1, 2, 5_000)]}},
    "long words that are added": {"added_tokens": added("a" * 5_000)},
    "an unknown step": {"normalizer": {"type": "Repeat", "times": 9}},
    "no pattern": {"normalizer": {"type": "Replace", "content": "a"}},
    "a pattern of another kind": {"normalizer": replace("a", Glob="*")},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_tokenizer_that_makes_much_of_little_is_refused_before_it_runs(
    name, folder, refused: Refused
):
    said = refused("model", spoilt(folder, **HOSTILE[name]))
    assert (said["code"], said["where"]) in [
        ("model_unreadable", "tokenizer.json"),
        ("model_too_large", "tokenizer.json"),
    ]


@pytest.mark.parametrize(
    "saved",
    [
        {"padding": {"strategy": {"Fixed": 1 << 40}, "direction": "Right", "pad_to_multiple_of": 9,
                     "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}},
        {"truncation": {"direction": "Left", "max_length": 1 << 40, "strategy": "OnlySecond",
                        "stride": 1 << 39}},
    ],
    ids=["padding", "truncation"],
)  # fmt: skip
def test_padding_and_truncation_that_were_saved_are_never_done(saved, folder, intake):
    said = intake("model", spoilt(folder, **saved))
    assert (said["code"], said["crash"]) == (None, None)
    assert said["grown"] < 64 * MIB


JOB = """
import json, os, resource, sys, time
from pathlib import Path
from pruning import allowance
from pruning.formats.bundle import open_bundle
from pruning.formats.huggingface import tokenizer
from pruning.formats.limits import Limits

def end(error):
    say(error.code)

def say(code):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.process_time() - begun
    print(json.dumps({"code": code, "grown": peak - before, "seconds": seconds}), flush=True)
    os._exit(0)

allowance.ended_by(end)
tokenizer._SECONDS, tokenizer._MEMORY = 0.5, 200 << 20
with open_bundle(Path(sys.argv[1]), Limits()) as bundle:
    made = tokenizer.read_tokenizer(bundle, ["input_ids"], 16, 0, 1 << 40, Limits())
before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, time.process_time()
made(["a"])
texts = json.loads(sys.stdin.read())
try:
    made(texts)
except Exception as error:
    say(getattr(error, "code", str(error)))
say(None)
"""


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


RUNNING: dict[str, tuple[dict[str, Any], list[Any], str | None]] = {
    "a pattern that goes back": (
        {"pre_tokenizer": split("(a|aa)+$")}, [("a" * 30 + "b") * 6_000], "data_too_large"),
    "a pattern that takes a power of the length": (
        {"pre_tokenizer": split(r"(?:a*)(?:a*)[^a]\d")}, [("a" * 900 + "b") * 200],
        "data_too_large"),
    "pieces that all begin alike": (
        {"model": {"type": "Unigram", "unk_id": 0, "byte_fallback": False,
                   "vocab": [["u", -1.0], *(["a" * i, -1.0] for i in range(1, 1_000))]}},
        ["a" * 199_999], "data_too_large"),
    "much of each letter": (
        {"normalizer": replace("b " * 64, String="a"),
         "pre_tokenizer": {"type": "WhitespaceSplit"}}, ["a" * 500_000], "data_too_large"),
    "much more than may be": (
        {"normalizer": replace("b" * 512, String="a")}, ["a" * 999_999], "data_too_large"),
    "two long texts": (
        {"pre_tokenizer": split(".")}, [["a" * 200_000, "b" * 200_000]], None),
    "one long text": ({"pre_tokenizer": split(".")}, ["a" * 500_000], None),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNNING)
def test_texts_that_keep_a_tokenizer_busy_end_with_a_code(name, folder):
    changes, texts, code = RUNNING[name]
    done = subprocess.run(
        [sys.executable, "-c", JOB, str(spoilt(folder, **changes))],
        input=json.dumps(texts), capture_output=True, text=True, env=environment(), timeout=60,
        check=True,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert said["code"] == code
    assert said["seconds"] < 8
    assert said["grown"] < 400 * MIB
