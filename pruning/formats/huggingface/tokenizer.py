"""tokenizer.json: texts to the inputs of the network, by the `tokenizers` package.

The file is data for a parser: no class of the upload's naming is ever made, and neither its padding
nor its truncation is used, since both depend on what it was saved for.
"""

import base64
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pruning.errors import SecateurError
from pruning.formats.bundle import Bundle
from pruning.formats.huggingface.texts import parse, shown
from pruning.formats.json_cost import most_of_tokenizer
from pruning.formats.limits import Limits

FILE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"

MOST_TOKENS = 2_048
"""Longer texts are cut whatever the network could take."""

_LONGEST_PATTERN = 4_096
_MOST_STEPS = 64


class TextInputs:
    """Texts to int64 arrays [texts, tokens], as long as the longest of a call.

    Args:
        tokenizer: Of the `tokenizers` package.
        names: The network's inputs, in order.
        most: Where texts are cut, in tokens.
        pad: The token behind shorter texts.
        vocabulary: How many tokens the network knows.
    """

    def __init__(
        self, tokenizer: Any, names: Sequence[str], most: int, pad: int, vocabulary: int
    ) -> None:
        self._tokenizer, self.names = tokenizer, tuple(names)
        self.most, self.pad, self._vocabulary = most, pad, vocabulary

    def __call__(self, texts: Sequence[str | tuple[str, str]]) -> dict[str, np.ndarray]:
        """The inputs by name, and `attention_mask` also where the network does not take it.

        Raises:
            SecateurError: `data_unreadable` for a text that can't be split into tokens,
                `data_shape` for a token that the network does not know.
        """
        encoded = _safely(
            "data_unreadable", lambda: self._tokenizer.encode_batch(list(texts)), "texts"
        )
        length = max((len(e.ids) for e in encoded), default=0) or 1
        shape = (len(encoded), length)
        arrays = {
            "input_ids": np.full(shape, self.pad, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for row, encoding in enumerate(encoded):
            count = len(encoding.ids)
            arrays["input_ids"][row, :count] = encoding.ids
            arrays["attention_mask"][row, :count] = 1
            arrays["token_type_ids"][row, :count] = encoding.type_ids
        largest = int(arrays["input_ids"].max(initial=0))
        if largest >= self._vocabulary:
            raise SecateurError(
                "data_shape",
                f"The tokenizer gives token {largest}; the network knows {self._vocabulary}.",
                where=FILE,
                hint="Upload the tokenizer.json that belongs to the network.",
            )
        return {name: arrays[name] for name in dict.fromkeys((*self.names, "attention_mask"))}


def read_tokenizer(
    bundle: Bundle,
    names: Sequence[str],
    most: int,
    pad: int | None,
    vocabulary: int,
    limits: Limits,
) -> TextInputs | None:
    """The folder's tokenizer; None without a tokenizer.json.

    Args:
        bundle: The folder.
        names: The network's inputs.
        most: Positions of the network, or fewer.
        pad: The network's padding token.
        vocabulary: Tokens of the network.
        limits: `tokenizer_bytes` and `text_bytes`.

    Raises:
        SecateurError: `model_unreadable`, `model_too_large`.
    """
    if FILE not in bundle.sizes:
        return None
    raw = bundle.read(FILE, limits.tokenizer_bytes)
    _check(parse(raw, FILE, most_of_tokenizer(len(raw))))
    # The trace of a panic in the package would cost 80 MB of symbols.
    os.environ["RUST_BACKTRACE"] = "0"
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise SecateurError(
            "package_missing", f"Reading {FILE} needs the package tokenizers ({error})."
        ) from error
    tokenizer = _safely("model_unreadable", lambda: Tokenizer.from_buffer(raw), FILE)
    settings = _settings(bundle, limits)
    length = settings.get("model_max_length")
    if type(length) is int and length > 0:
        most = min(most, length)
    most = min(most, MOST_TOKENS)
    tokenizer.no_padding()
    _safely("model_unreadable", lambda: tokenizer.enable_truncation(most), FILE)
    if pad is None:
        named = settings.get("pad_token")
        named = named.get("content") if isinstance(named, dict) else named
        pad = tokenizer.token_to_id(named) if isinstance(named, str) else None
    known = pad is not None and 0 <= pad < vocabulary
    return TextInputs(tokenizer, names, most, pad if known and pad is not None else 0, vocabulary)


def _settings(bundle: Bundle, limits: Limits) -> dict[str, Any]:
    if SETTINGS not in bundle.sizes:
        return {}
    # Its model_max_length may be 10^30 in one spelling or another; it is bounded where it is used.
    value = parse(bundle.read(SETTINGS, limits.text_bytes), SETTINGS)
    return value if isinstance(value, dict) else {}


def _check(value: Any) -> None:
    """Refuses what only serves to keep the parser busy.

    Raises:
        SecateurError: `model_unreadable`.
    """
    if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
        raise _refuse("it has no model")
    steps = 0
    level: list[Any] = [value.get(k) for k in ("normalizer", "pre_tokenizer", "post_processor",
                                               "decoder")]  # fmt: skip
    while level:
        part = level.pop()
        if isinstance(part, list):
            level.extend(part)
        elif isinstance(part, dict):
            steps += "type" in part
            level.extend(part.values())
            pattern = part.get("Regex")
            if isinstance(pattern, str) and len(pattern) > _LONGEST_PATTERN:
                raise _refuse(f"a pattern has {len(pattern)} characters")
            if "precompiled_charsmap" in part and not _is_charsmap(part["precompiled_charsmap"]):
                raise _refuse("its precompiled_charsmap is damaged")
        if steps > _MOST_STEPS:
            raise _refuse(f"it has more than {_MOST_STEPS} steps")


def _is_charsmap(value: Any) -> bool:
    """Whether it is the length of a trie of 32-bit numbers, the trie, and text; as base64."""
    if value is None:
        return True
    try:
        raw = base64.b64decode(value, validate=True)
        size = int.from_bytes(raw[:4], "little")
        raw[4 + size :].decode()
    except (TypeError, ValueError):
        return False
    return len(raw) >= 4 + size and size > 0 and size % 4 == 0


def _safely(code: str, call: Any, where: str) -> Any:
    """Runs the package's own code; a panic in it, which is no Exception, is an error too."""
    try:
        return call()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise SecateurError(
            code,
            f"{where} can't be read by the tokenizer: {shown(str(error))}",
            where=where,
            hint="Save the tokenizer again with a present version of the library.",
        ) from None


def _refuse(reason: str) -> SecateurError:
    return SecateurError("model_unreadable", f"{FILE} can't be read: {reason}.", where=FILE)
