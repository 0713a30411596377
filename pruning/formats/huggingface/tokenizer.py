"""tokenizer.json: texts to the inputs of the network, by the `tokenizers` package.

The file is data for a parser: no class of the upload's naming is ever made, and neither its padding
nor its truncation is used, since both depend on what it was saved for. What it may make of a text
is priced before it is read, and what the library then takes is watched.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pruning import allowance
from pruning.errors import SecateurError
from pruning.formats.bundle import Bundle
from pruning.formats.huggingface.growth import UnboundedError
from pruning.formats.huggingface.template import Layout, Template, kept
from pruning.formats.huggingface.texts import parse, shown
from pruning.formats.huggingface.tokenizer_price import most_bytes, price
from pruning.formats.json_cost import most_of_tokenizer
from pruning.formats.limits import MIB, Limits

FILE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"

MOST_TOKENS = 2_048
"""Longer texts are cut whatever the network could take."""

_AT_ONCE = 64 * MIB
"""Bytes that the texts of one call of the library may become; more only for a single text."""

_LONGEST = 256 * MIB
"""Bytes that one text may become."""

_MEMORY = 768 * MIB
"""What the library may take at a time; for a million characters it takes 100 MB."""

_SECONDS, _SECONDS_A_BYTE = 5.0, 5e-6
"""Computing, all texts together; the library takes 0.3 to 2 microseconds for a byte."""


class TextInputs:
    """Texts to int64 arrays [texts, tokens], as long as the longest of a call.

    Args:
        tokenizer: Of the `tokenizers` package.
        names: The network's inputs, in order.
        most: Where texts are cut, in tokens.
        pad: The token behind shorter texts.
        vocabulary: How many tokens the network knows.
        grown: What becomes of a byte, as in `growth`.
        template: What goes around a text's tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        names: Sequence[str],
        most: int,
        pad: int,
        vocabulary: int,
        grown: np.ndarray,
        template: Template,
    ) -> None:
        self._tokenizer, self.names = tokenizer, tuple(names)
        self.most, self.pad, self._vocabulary = most, pad, vocabulary
        self._grown, self._template = grown, template
        self._read, self._worked = 0, 0.0

    def __call__(self, texts: Sequence[str | tuple[str, str]]) -> dict[str, np.ndarray]:
        """The inputs by name, and `attention_mask` also where the network does not take it.

        Raises:
            SecateurError: `data_unreadable` for a text that can't be split into tokens,
                `data_too_large` for one that becomes too long, `data_shape` for a token that the
                network does not know.
        """
        rows = list(self._rows(texts))
        length = max((len(tokens) for tokens, _ in rows), default=0) or 1
        shape = (len(rows), length)
        arrays = {
            "input_ids": np.full(shape, self.pad, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for row, (tokens, types) in enumerate(rows):
            arrays["input_ids"][row, : len(tokens)] = tokens
            arrays["attention_mask"][row, : len(tokens)] = 1
            arrays["token_type_ids"][row, : len(tokens)] = types
        largest = int(arrays["input_ids"].max(initial=0))
        if largest >= self._vocabulary:
            raise SecateurError(
                "data_shape",
                f"The tokenizer gives token {largest}; the network knows {self._vocabulary}.",
                where=FILE,
                hint="Upload the tokenizer.json that belongs to the network.",
            )
        return {name: arrays[name] for name in dict.fromkeys((*self.names, "attention_mask"))}

    def _rows(
        self, texts: Sequence[str | tuple[str, str]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The tokens of each, cut and with what goes around them, and their types."""
        parts = iter(self._encoded([t for text in texts for t in _parts(text)]))
        for text in texts:
            layout = self._layout(text)
            own = [next(parts) for _ in _parts(text)]
            counts = kept([count for count, _ in own], self.most - layout.added)
            yield layout.filled(
                [tokens[:count] for (_, tokens), count in zip(own, counts, strict=True)]
            )

    def _layout(self, text: str | tuple[str, str]) -> Layout:
        layout = self._template.single if isinstance(text, str) else self._template.pair
        if layout is None:
            raise SecateurError(
                "data_unreadable", "The tokenizer takes no second text beside the first.",
                where=FILE, hint="Give texts without text_pair.",
            )  # fmt: skip
        if layout.added > self.most:
            raise SecateurError(
                "data_shape",
                f"The tokenizer puts {layout.added} tokens around two texts; the network takes "
                f"{self.most}.",
                where=FILE,
            )
        return layout

    def _encoded(self, texts: list[str]) -> Iterator[tuple[int, np.ndarray]]:
        """How many tokens each text has, and as many of them as can be kept."""
        waiting: list[str] = []
        total = 0
        for text in texts:
            raw = text.encode()
            size = most_bytes(raw, self._grown)
            if size > _LONGEST:
                raise SecateurError(
                    "data_too_large",
                    f"A text of {len(raw)} bytes may become {size} before the tokenizer splits it; "
                    f"the limit is {_LONGEST}.",
                    hint="Cut texts to what the model reads.",
                )
            if waiting and total + size > _AT_ONCE:
                yield from self._call(waiting)
                waiting, total = [], 0
            waiting.append(text)
            total += size
            self._read += len(raw)
        if waiting:
            yield from self._call(waiting)

    def _call(self, texts: list[str]) -> Iterator[tuple[int, np.ndarray]]:
        begun = allowance.work()
        seconds = _SECONDS + _SECONDS_A_BYTE * self._read - self._worked
        with allowance.at_most(max(0.0, seconds), _MEMORY, _too_much(texts)):
            encoded = _safely(
                "data_unreadable",
                lambda: self._tokenizer.encode_batch_fast(texts, add_special_tokens=False),
                "texts",
            )
        self._worked += allowance.work() - begun
        while encoded:
            one = encoded.pop(0)
            yield len(one), np.array(one.ids[: self.most], np.int64)


def _parts(text: str | tuple[str, str]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def _too_much(texts: list[str]) -> SecateurError:
    return SecateurError(
        "data_too_large",
        f"The model's tokenizer takes far more time or memory than others for {len(texts)} texts, "
        f"the longest of {max(map(len, texts))} characters.",
        where=FILE,
        hint="Cut texts to what the model reads; look for a pattern in tokenizer.json that tries "
        "many ways to match, or a step that makes texts longer.",
    )


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
    try:
        grown, template = price(parse(raw, FILE, most_of_tokenizer(len(raw))))
    except UnboundedError as error:
        raise _refuse(str(error)) from None
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
    if template.single.added > most:
        raise _refuse(f"it puts {template.single.added} tokens around a text, of {most} in all")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if pad is None:
        named = settings.get("pad_token")
        named = named.get("content") if isinstance(named, dict) else named
        pad = tokenizer.token_to_id(named) if isinstance(named, str) else None
    known = pad is not None and 0 <= pad < vocabulary
    behind = pad if known and pad is not None else 0
    return TextInputs(tokenizer, names, most, behind, vocabulary, grown, template)


def _settings(bundle: Bundle, limits: Limits) -> dict[str, Any]:
    if SETTINGS not in bundle.sizes:
        return {}
    # Its model_max_length may be 10^30 in one spelling or another; it is bounded where it is used.
    value = parse(bundle.read(SETTINGS, limits.text_bytes), SETTINGS)
    return value if isinstance(value, dict) else {}


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
