"""tokenizer.json held to what tokenizers are, before the library that runs it sees it. Torch-free.

Without this a file of 20 KB makes of each text one a million times as long, at the latest when the
words that were added are normalized, which the library does while it reads the file.
"""

from typing import Any

import numpy as np

from pruning.formats.huggingface.growth import UnboundedError, growth
from pruning.formats.huggingface.template import Template, TemplateError, template
from pruning.formats.huggingface.texts import shown

MOST_WORDS = 1 << 20
"""Tokens of a vocabulary; the largest of those that are read has a quarter."""

_MOST_MERGES = 1 << 21
_MOST_ADDED = 200_000
_LONGEST_ADDED = 4_096
_ADDED_BYTES = 16 << 20
_LONGEST_WORD = 1_000
_LONGEST_PIECE = 4_096


def price(value: Any) -> tuple[np.ndarray, Template]:
    """How much longer a text may become, as in `growth`, and what goes around its tokens.

    Args:
        value: The parsed file.

    Raises:
        UnboundedError: With the reason.
    """
    try:
        if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
            raise UnboundedError("it has no model")
        grown = growth(value.get("normalizer"), value.get("pre_tokenizer"))
        _check_model(value["model"])
        _check_added(value.get("added_tokens") or [], grown)
        return grown, template(value.get("post_processor"))
    except TemplateError as error:
        raise UnboundedError(str(error)) from None
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        if isinstance(error, UnboundedError):
            raise
        raise UnboundedError(f"a part lacks what it consists of ({shown(str(error))})") from None


def _check_model(model: dict[str, Any]) -> None:
    words, merges = model.get("vocab") or (), model.get("merges") or ()
    if len(words) > MOST_WORDS or len(merges) > _MOST_MERGES:
        raise UnboundedError(
            f"its vocabulary has {len(words)} tokens and {len(merges)} merges; at most "
            f"{MOST_WORDS} and {_MOST_MERGES} are read"
        )
    longest = model.get("max_input_chars_per_word", 0)
    if isinstance(longest, int) and longest > _LONGEST_WORD:
        raise UnboundedError(
            f"it takes words of {longest} characters apart; at most {_LONGEST_WORD} are read"
        )
    # Each place of a text is compared with every piece that begins there.
    piece = max((len(word if isinstance(word, str) else word[0]) for word in words), default=0)
    if piece > _LONGEST_PIECE:
        raise UnboundedError(f"a token has {piece} characters; at most {_LONGEST_PIECE} are read")


def _check_added(tokens: list[Any], grown: np.ndarray) -> None:
    if len(tokens) > _MOST_ADDED:
        raise UnboundedError(f"it adds {len(tokens)} tokens; at most {_MOST_ADDED} are read")
    total = 0
    for token in tokens:
        text = token["content"].encode()
        if len(text) > _LONGEST_ADDED:
            raise UnboundedError(f"a token that it adds has {len(text)} bytes")
        total += most_bytes(text, grown)
    if total > _ADDED_BYTES:
        raise UnboundedError(f"the tokens that it adds may become {total} bytes")


def most_bytes(text: bytes, grown: np.ndarray) -> int:
    """Bytes that a text may become.

    Args:
        text: As UTF-8.
        grown: As in `growth`.
    """
    other = len(text.translate(None, _ASCII))
    return int((grown @ (len(text) - other, other)).sum())


_ASCII = bytes(range(128))
