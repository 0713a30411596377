"""How much one JSON body may hold: found from its bytes, before anything is made of them.

What a mebibyte can make a parser do takes up to a second, in which the interpreter does nothing
else: 80,000 unknown fields that are explained one by one, lists within lists, numbers of hundreds
of digits. Bodies without any of that pass by three counts of single bytes and one search.
"""

import re

from pruning.errors import SecateurError

MOST_VALUES = 4_000
"""Values: each list and object, and each entry of theirs. A spec has at most half of it."""

LONGEST_NUMBER = 100
"""Characters of a number: the shortest decimal that means a certain double has 24 at most."""

# Possessive, and with an end for a text that has none, so that no byte is looked at twice.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_DIGITS = bytes(48 if byte in b"0123456789." else 32 for byte in range(256))
_LONG = b"0" * (LONGEST_NUMBER + 1)


def check_extent(body: bytes) -> None:
    """Refuses a body that holds more than one may.

    Args:
        body: Bytes that may be JSON; whether they are is found out later.

    Raises:
        SecateurError: `too_large` for too many values, `invalid_json` for too long a number.
    """
    many = _marks(body) > MOST_VALUES
    long = _holds_long_number(body)
    if not many and not long:
        return
    # Not what stands in texts. No value has more than two of them: its key and itself.
    most = 2 * MOST_VALUES
    rest, texts = _TEXT.subn(b"", body, count=most + 1)
    if texts > most or _marks(rest) > MOST_VALUES:
        raise SecateurError(
            "too_large",
            f"The body holds more than the {MOST_VALUES:,} values that are taken here.",
            where="body",
            hint="Name many layers by one shell pattern: encoder.*",
            limit=MOST_VALUES,
        )
    if _holds_long_number(rest):
        raise SecateurError(
            "invalid_json",
            f"The body holds a number of more than {LONGEST_NUMBER} digits.",
            where="body",
            hint="Send one JSON object with Content-Type: application/json.",
        )


def _holds_long_number(body: bytes) -> bool:
    return _LONG in body.translate(_DIGITS)


def _marks(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")
