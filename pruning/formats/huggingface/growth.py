"""How much longer a tokenizer may make a text, told from its JSON before anything of it runs.

A step is two by two numbers: how many bytes of ASCII, and of other characters, at most come of one
byte of each, as UTF-8. Telling the two apart matters: the forms of Unicode make eleven bytes of one
that is not ASCII, and none more of one that is, which most texts are made of. Steps are multiplied.
Torch-free.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pruning.formats.huggingface.charsmap import replacements
from pruning.formats.huggingface.patterns import is_linear

MOST = 1_024.0
"""Bytes that may come of one; of the models that are read, XLM-RoBERTa's come closest, with 200."""

_MOST_STEPS = 64
_LONGEST_PATTERN = 4_096

Part = dict[str, Any]


class UnboundedError(ValueError):
    """The step is not known, or makes too much of too little."""


def growth(normalizer: Any, pre_tokenizer: Any) -> np.ndarray:
    """Bytes that come of one, [ASCII or other, of ASCII or of other].

    Args:
        normalizer: As in tokenizer.json, or None.
        pre_tokenizer: The same.

    Raises:
        UnboundedError: With the reason.
        TypeError, KeyError, AttributeError: A step lacks what it consists of.
    """
    grown = np.eye(2)
    steps = 0
    for part, inner, known in (
        (normalizer, "normalizers", _NORMALIZERS),
        (pre_tokenizer, "pretokenizers", _PRE_TOKENIZERS),
    ):
        waiting = [part] if part is not None else []
        while waiting:
            step = waiting.pop()
            steps += 1
            if steps > _MOST_STEPS:
                raise UnboundedError(f"it has more than {_MOST_STEPS} steps")
            if step["type"] == "Sequence":
                waiting.extend(reversed(step[inner]))
                continue
            if step["type"] not in known:
                raise UnboundedError(f"the step {step['type']!r} is not known here")
            grown = known[step["type"]](step) @ grown
            if (most := float(grown.sum(0).max())) > MOST:
                raise UnboundedError(
                    f"its steps may make a text {most:.0f} times as long; the limit is {MOST:.0f}"
                )
    return grown


def _matrix(*, plain: tuple[float, float], other: tuple[float, float]) -> np.ndarray:
    """From what comes of one byte of ASCII, and of one that is not: as ASCII, and not."""
    return np.array([plain, other], float).T


def _constant(plain: tuple[float, float], other: tuple[float, float]) -> Callable[[Part], Any]:
    return lambda step: _matrix(plain=plain, other=other)


_SAME = _constant((1, 0), (0, 1))
# Unicode Standard Annex 15, section 9: at most 3 bytes of one for NFC and NFD, 11 for NFKC and
# NFKD. Of ASCII as much as of the whole, in "㎭" and its like 4 of 3.
_CANONICAL = _constant((1, 0), (1, 3))
_COMPATIBLE = _constant((1, 0), (2, 11))


def _bytes(text: str) -> tuple[int, int]:
    raw = text.encode()
    plain = sum(byte < 128 for byte in raw)
    return plain, len(raw) - plain


def _put_before(text: str) -> np.ndarray:
    """Put before every part of a text, each of which has a byte at least."""
    plain, other = _bytes(text)
    return np.eye(2) + _matrix(plain=(plain, other), other=(plain, other))


def _replaced(key: tuple[int, int], text: tuple[int, int]) -> np.ndarray:
    """Every place of a key takes as many bytes of the text as the key has."""
    if not sum(key):
        return np.eye(2) + _matrix(plain=text, other=text)
    more = [max(0, there - here) for here, there in zip(key, text, strict=True)]
    # As many places as the key's bytes of ASCII allow, or if it has none, its others.
    column = 0 if key[0] else 1
    grown = np.eye(2)
    grown[:, column] += np.array(more, float) / key[column]
    return grown


def _replace(step: Part) -> np.ndarray:
    pattern, text = step["pattern"], _bytes(step["content"])
    if "String" in pattern:
        return _replaced(_bytes(pattern["String"]), text)
    expression = pattern["Regex"]
    if len(expression) > _LONGEST_PATTERN:
        raise UnboundedError(f"a pattern has {len(expression)} characters")
    if not is_linear(expression):
        raise UnboundedError(
            f"its normalizer looks for {expression[:40]!r}; how long that takes can't be told"
        )
    # It may match nothing at all, before and after every byte.
    return _replaced((0, 0), text)


def _precompiled(step: Part) -> np.ndarray:
    try:
        found = replacements(step["precompiled_charsmap"])
    except (TypeError, ValueError) as error:
        raise UnboundedError(f"its precompiled_charsmap is damaged ({error})") from None
    grown = np.eye(2)
    for replaced in found:
        grown = np.maximum(grown, _replaced(*replaced))
    return grown


def _metaspace(step: Part) -> np.ndarray:
    mark = step["replacement"]
    return _put_before(mark) @ _replaced((1, 0), _bytes(mark))


def _byte_level(step: Part) -> np.ndarray:
    # Each byte becomes a letter of one or two bytes.
    letters = _matrix(plain=(1, 2), other=(0, 2))
    return letters @ _put_before(" ") if step.get("add_prefix_space", True) else letters


_NORMALIZERS: dict[str, Callable[[Part], Any]] = {
    # Spaces around each Chinese character, accents taken off by NFD, lower case.
    "BertNormalizer": _constant((1, 0), (2, 5)),
    "ByteLevel": _constant((1, 2), (0, 2)),
    "Lowercase": _constant((1, 0), (1, 2)),
    "NFC": _CANONICAL,
    "NFD": _CANONICAL,
    "NFKC": _COMPATIBLE,
    "NFKD": _COMPATIBLE,
    "Nmt": _constant((1, 0), (1, 1)),
    "Precompiled": _precompiled,
    "Prepend": lambda step: _put_before(step["prepend"]),
    "Replace": _replace,
    "Strip": _SAME,
    "StripAccents": _SAME,
}


def _split(step: Part) -> Any:
    expression = step["pattern"].get("Regex", "")
    if len(expression) > _LONGEST_PATTERN:
        raise UnboundedError(f"a pattern has {len(expression)} characters")
    return np.eye(2)


_PRE_TOKENIZERS: dict[str, Callable[[Part], Any]] = {
    "BertPreTokenizer": _SAME,
    "ByteLevel": _byte_level,
    "CharDelimiterSplit": _SAME,
    "Digits": _SAME,
    "FixedLength": _SAME,
    "Metaspace": _metaspace,
    "Punctuation": _SAME,
    "Split": _split,
    "UnicodeScripts": _SAME,
    "Whitespace": _SAME,
    "WhitespaceSplit": _SAME,
}
