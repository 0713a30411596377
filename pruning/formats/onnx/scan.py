"""Counts what an ONNX file would unpack to, from its bytes: a parser takes 30 times their size."""

from collections.abc import Iterator

from pruning.errors import SecateurError

_SMALL = 1 << 20
_GRAPH, _NODE = 7, 1
_LARGE_NODE = 1 << 16
_FIELDS = 4096
_FIXED = {1: 8, 5: 4}


def check_counts(data: bytes, most: int) -> None:
    """Refuses files of so many small parts that parsing them would take too much memory.

    Args:
        data: A file whose top-level fields are whole.
        most: Nodes, tensors and other values of the graph, together.

    Raises:
        SecateurError: `model_too_large`.
    """
    if len(data) < _SMALL:
        return
    count = 0
    for number, start, end in _fields(data, 0, len(data)):
        if number != _GRAPH:
            continue
        for inner, begin, stop in _fields(data, start, end):
            count += 1
            if count > most:
                raise SecateurError(
                    "model_too_large",
                    f"The graph has over {most} nodes, constants and values, which is the limit.",
                )
            if inner == _NODE and stop - begin > _LARGE_NODE:
                _check_node(data, begin, stop)


def _check_node(data: bytes, start: int, end: int) -> None:
    for count, _ in enumerate(_fields(data, start, end)):
        if count > _FIELDS:
            raise SecateurError(
                "model_too_large", f"A node has over {_FIELDS} inputs, outputs and attributes."
            )


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field; ends where no field can be read."""
    place = start
    while place < end:
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == 2:
            size, place = _varint(data, place)
        elif kind in _FIXED:
            size = _FIXED[kind]
        elif kind == 0:
            _, stop = _varint(data, place)
            size = stop - place
        else:
            return  # the parser says what is wrong
        if place + size > end:
            return
        yield tag >> 3, place, place + size
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[place : place + 10]:
        value |= (byte & 127) << shift
        shift += 7
        place += 1
        if byte < 128:
            break
    return value, place
