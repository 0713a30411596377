"""What goes around the tokens of a text or of two, and how many of theirs are kept.

The library would do both, but keeps what it cuts off, and for two texts every part of one beside
every part of the other: two of 100 KB take 8 GB. Torch-free.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_FIRST, _SECOND = -1, -2
_PROCESSORS = ("BertProcessing", "RobertaProcessing", "TemplateProcessing")


class TemplateError(ValueError):
    """The post-processor is not one that is read."""


@dataclass(frozen=True)
class Layout:
    """Tokens in their order, a text's own standing as one entry.

    Attributes:
        tokens: Tokens, `_FIRST` and `_SECOND` for those of a text.
        types: The type of each.
    """

    tokens: tuple[int, ...]
    types: tuple[int, ...]

    @property
    def added(self) -> int:
        """Tokens that are no text's."""
        return sum(token >= 0 for token in self.tokens)

    def filled(self, texts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and their types, int64.

        Args:
            texts: The tokens of each text, as many as are kept.
        """
        parts = [texts[-1 - t] if t < 0 else np.array([t], np.int64) for t in self.tokens]
        types = [np.full(len(p), t, np.int64) for p, t in zip(parts, self.types, strict=True)]
        empty = np.empty(0, np.int64)
        return np.concatenate([empty, *parts]), np.concatenate([empty, *types])


@dataclass(frozen=True)
class Template:
    """The layout of one text, and of a text and its second; `pair` is None where there is none."""

    single: Layout
    pair: Layout | None


_PLAIN = Template(Layout((_FIRST,), (0,)), Layout((_FIRST, _SECOND), (0, 1)))


def template(post_processor: Any) -> Template:
    """What a post-processor of tokenizer.json does.

    Args:
        post_processor: Its JSON, or None.

    Raises:
        TemplateError: It is not known, or has a text twice.
        TypeError, KeyError, AttributeError: It lacks what it consists of.
    """
    found = [part for part in _flat(post_processor) if part["type"] != "ByteLevel"]
    if not found:
        return _PLAIN
    if len(found) > 1 or found[0]["type"] not in _PROCESSORS:
        names = ", ".join(str(part["type"])[:40] for part in found[:4])
        raise TemplateError(f"its post-processor ({names}) is not one that is read")
    part = found[0]
    if part["type"] == "TemplateProcessing":
        special = part["special_tokens"]
        single = _layout(part["single"], special, 1)
        # Without a place for a second text it is a tokenizer of one.
        pair = _layout(part["pair"], special, 2) if _texts(part["pair"]) == 2 else None
        return Template(single, pair)
    first, last = _token(part["cls"][1]), _token(part["sep"][1])
    single = Layout((first, _FIRST, last), (0, 0, 0))
    if part["type"] == "BertProcessing":
        return Template(single, Layout((first, _FIRST, last, _SECOND, last), (0, 0, 0, 1, 1)))
    return Template(single, Layout((first, _FIRST, last, last, _SECOND, last), (0,) * 6))


def kept(counts: Sequence[int], room: int) -> list[int]:
    """How many tokens of each text are kept where there is room for so many.

    Of two, as the library's strategy `longest_first`: the shorter one whole where the other can
    give way, else half for each, and the odd one for the longer.
    """
    if sum(counts) <= room or len(counts) == 1:
        return [min(count, room) for count in counts]
    short, long = sorted(counts)
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short, long = room // 2, room // 2 + room % 2
    return [long, short] if counts[0] > counts[1] else [short, long]


def _flat(part: Any) -> list[dict[str, Any]]:
    """Processors in a row, without the sequences that hold them."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [inner for step in part["processors"] for inner in _flat(step)]


def _texts(pieces: Any) -> int:
    return sum("Sequence" in piece for piece in pieces)


def _layout(pieces: Any, special: Any, texts: int) -> Layout:
    tokens: list[int] = []
    types: list[int] = []
    for piece in pieces:
        ((kind, inner),) = piece.items()
        if kind == "Sequence":
            found = [{"A": _FIRST, "B": _SECOND}[inner["id"]]]
        else:
            found = [_token(token) for token in special[inner["id"]]["ids"]]
        tokens += found
        types += [_token(inner["type_id"])] * len(found)
        if len(tokens) > _MOST:
            raise TemplateError(f"its post-processor adds more than {_MOST} tokens")
    own = [token for token in tokens if token < 0]
    if sorted(own, reverse=True) != [_FIRST, _SECOND][:texts]:
        raise TemplateError("its post-processor does not have each text once")
    return Layout(tuple(tokens), tuple(types))


_MOST = 2_048


def _token(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise TemplateError("its post-processor adds a token without a number")
    return value
