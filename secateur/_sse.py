"""A parser for server-sent events (WHATWG HTML, 9.2.6), fed with bytes as they arrive."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """One dispatched event."""

    id: str
    event: str
    data: str


class Parser:
    """Turns bytes into frames, whatever the chunks' borders."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._rest = ""
        self._id = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that the chunk completes."""
        text = self._rest + self._decode(chunk)
        # A carriage return at the end may be the first half of a line break.
        held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        *lines, last = text.split("\n")
        self._rest = last + held
        for line in lines:
            frame = self._line(line)
            if frame is not None:
                yield frame

    def _line(self, line: str) -> Frame | None:
        if not line:
            data, self._data = self._data, []
            event, self._event = self._event, ""
            return Frame(self._id, event or "message", "\n".join(data)) if data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None
