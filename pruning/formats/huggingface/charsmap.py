"""What a `Precompiled` normalizer replaces: a trie of 32-bit numbers and the texts it leads to.

The trie is the double array of darts-clone: at a place lies a number with a label, an offset to the
place of its children (each is at that place xor its label), and whether a key ends there, whose
value, a place among the texts, lies at the offset itself. The library takes the shortest key that
a character or a cluster of fewer than six bytes begins with.
"""

import base64
from typing import NamedTuple

import numpy as np

_LARGEST = 1 << 20
_LONGEST_KEY = 5
_LONGEST_TEXT = 256
_LABELS = np.arange(1, 256, dtype=np.uint32)
_AT_ONCE = 4_096


class Replaced(NamedTuple):
    """A key and what takes its place, in bytes: those of ASCII, and others."""

    key: tuple[int, int]
    text: tuple[int, int]


def replacements(value: object) -> set[Replaced]:
    """Which lengths a character map turns into which.

    Args:
        value: Base64 of the length of the trie, the trie, and the texts; None for an empty map.

    Raises:
        ValueError: It is damaged, or larger than maps of all of Unicode are.
    """
    if value is None:
        return set()
    if not isinstance(value, str | bytes) or len(value) > 2 * _LARGEST:
        raise ValueError("it is no text, or too long")
    raw = base64.b64decode(value, validate=True)
    size = int.from_bytes(raw[:4], "little")
    texts = raw[4 + size :]
    texts.decode()
    if len(raw) < 4 + size or size <= 0 or size % 4 or len(raw) > _LARGEST:
        raise ValueError("its sizes do not fit")
    return _walk(np.frombuffer(raw, "<u4", size // 4, 4), texts)


def _walk(units: np.ndarray, texts: bytes) -> set[Replaced]:
    """All keys, one byte more at a time; places that several keys share are followed once."""
    found: set[Replaced] = set()
    # Pairs of a place and how many bytes of the key are ASCII.
    level = np.array([[_offset(units[:1])[0], 0]], np.uint32)
    for length in range(1, _LONGEST_KEY + 1):
        parts = [
            _children(units, level[at : at + _AT_ONCE]) for at in range(0, len(level), _AT_ONCE)
        ]
        if not parts:
            break
        level = np.unique(np.concatenate(parts), axis=0)
        at, plain = level[:, 0], level[:, 1]
        unit = units[at]
        inner = at ^ _offset(unit)
        if inner.size and int(inner.max()) >= len(units):
            inner_fits = inner < len(units)
            level, unit, inner, plain = (a[inner_fits] for a in (level, unit, inner, plain))
        ends = ((unit >> 8) & 1).astype(bool)
        values = units[inner[ends]] & 0x7FFFFFFF
        for ascii_bytes, start in np.unique(np.stack([plain[ends], values], 1), axis=0).tolist():
            found.add(Replaced((ascii_bytes, length - ascii_bytes), _text(texts, start)))
        # The shortest key is taken, so nothing beyond it is ever reached.
        level = np.stack([inner[~ends], plain[~ends]], 1)
    return found


def _children(units: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The places that one more byte leads to."""
    at = level[:, :1] ^ _LABELS
    inside = at < len(units)
    label = units[np.where(inside, at, 0)] & np.uint32(0x800000FF)
    there = inside & (label == _LABELS)
    plain = level[:, 1:] + (_LABELS < 128)
    return np.stack([at[there], plain[there].astype(np.uint32)], 1)


def _offset(unit: np.ndarray) -> np.ndarray:
    return (unit >> 10) << ((unit & (1 << 9)) >> 6)


def _text(texts: bytes, start: int) -> tuple[int, int]:
    end = texts.find(b"\0", start, start + _LONGEST_TEXT + 1)
    if end < 0:
        end = len(texts)
    if not 0 <= end - start <= _LONGEST_TEXT:
        raise ValueError("what takes a character's place is too long, or nowhere")
    text = texts[start:end]
    plain = sum(byte < 128 for byte in text)
    return plain, len(text) - plain
