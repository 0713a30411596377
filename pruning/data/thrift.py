"""Thrift's compact protocol with budgets: structures as dictionaries by field number.

Nothing is known of what the fields mean; depth, number of structures and the buffer bound all.
"""

import struct
from typing import Any

_DEPTH = 24
_STRUCTURES = 200_000
_BOOLS = {1: True, 2: False}


class DamagedError(ValueError):
    """The bytes are no structure, or one over the budget."""


class Reader:
    """Reads from a buffer, `at` a place that moves on."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data, self.at = data, at
        self._left = _STRUCTURES

    def structure(self, depth: int = 0) -> dict[int, Any]:
        """The fields of one structure by their numbers.

        Raises:
            DamagedError: Not one, or too deep, too many, or longer than the buffer.
        """
        self._left -= 1
        if depth > _DEPTH or self._left < 0:
            raise DamagedError("it is nested too deeply or too large")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            kind, delta = head & 15, head >> 4
            number = number + delta if delta else self._zigzag()
            if number in fields:
                raise DamagedError("a field is given twice")
            fields[number] = _BOOLS[kind] if kind in _BOOLS else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # in lists a bool takes a byte
            return self._byte() == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return struct.unpack("<d", self._bytes(8))[0]
        if kind == 8:
            return self._bytes(self._varint())
        if kind in (9, 10):
            return self._list(depth)
        if kind == 11:
            return self._map(depth)
        if kind == 12:
            return self.structure(depth + 1)
        raise DamagedError(f"there is no type {kind}")

    def _list(self, depth: int) -> list[Any]:
        if depth > _DEPTH:
            raise DamagedError("it is nested too deeply")
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        self._check_count(count)
        return [self._value(head & 15, depth + 1) for _ in range(count)]

    def _map(self, depth: int) -> list[tuple[Any, Any]]:
        if depth > _DEPTH:
            raise DamagedError("it is nested too deeply")
        count = self._varint()
        if not count:
            return []
        kinds = self._byte()
        self._check_count(count)
        pair = kinds >> 4, kinds & 15
        return [
            (self._value(pair[0], depth + 1), self._value(pair[1], depth + 1)) for _ in range(count)
        ]

    def _check_count(self, count: int) -> None:
        if count > len(self._data) - self.at:
            raise DamagedError("a list is longer than what is left")
        self._left -= count // 8
        if self._left < 0:
            raise DamagedError("it is too large")

    def _byte(self) -> int:
        if self.at >= len(self._data):
            raise DamagedError("it ends early")
        self.at += 1
        return self._data[self.at - 1]

    def _bytes(self, count: int) -> bytes:
        if count > len(self._data) - self.at:
            raise DamagedError("it ends early")
        self.at += count
        return self._data[self.at - count : self.at]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
        raise DamagedError("a number has too many bytes")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
