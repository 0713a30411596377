"""What parsed JSON would take in memory, told from its bytes before it is parsed. Torch-free."""

MIB = 1 << 20
_EACH = {b"{": 200, b"[": 64, b",": 40, b'"': 25}
"""Bytes of Python objects for each: dictionaries, lists, numbers with their places, half texts."""

MOST = 48 * MIB
"""Of a file beside the weights: what a configuration or an index of thousands of tensors takes."""


def cost(raw: bytes) -> int:
    """Bytes that the values take, up to a few too many: marks inside texts count as well."""
    return sum(size * raw.count(mark) for mark, size in _EACH.items())


def most_of_tokenizer(size: int) -> int:
    """What a tokenizer's file of this many bytes may take: a vocabulary, and pairs to merge.

    Pairs in the tightest spelling take 12 bytes for each of the file's, empty lists three times
    as many.
    """
    return min(32 * MIB + 12 * size, 384 * MIB)
