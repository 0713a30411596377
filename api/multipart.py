"""The files of a multipart/form-data body, as a stream; python-multipart does the parsing."""

from collections.abc import AsyncIterator, Collection
from typing import NamedTuple, Self

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pruning.errors import SecateurError

_LONGEST_HEADERS = 8 << 10
_LONGEST_FIELD = 4 << 10  # bytes; of what they say, characters are counted
_LONGEST_TYPE = 1 << 10
_MOST_PARTS = 400  # files and all others

MOST_FILES = 256
"""Parts `file` that one upload may have."""

LONGEST_NAME = 1000
"""Characters of the part `name`, as of the query parameter; what is shown of it is shorter."""

MOST_OPTIONS, LONGEST_OPTION = 64, 300
"""How often a further part may come, and its characters; the same holds for query parameters."""


class Piece(NamedTuple):
    """Some bytes of the file with this number, counted from 0."""

    file: int
    data: bytes


class FileParts:
    """Finds the parts `file`; a part `name` may give a name; every other part is refused.

    `read` yields the files' bytes; what is not a file is bounded, so nothing piles up.

    Args:
        boundary: As the Content-Type has it.
        several: Whether there may be more than one file.
        options: Names of further parts, which may come more than once.
    """

    def __init__(
        self, boundary: bytes, several: bool = False, options: Collection[str] = ()
    ) -> None:
        self._several = several
        self.filenames: list[str | None] = []
        self.given_name: str | None = None
        self.options: dict[str, list[str]] = {name: [] for name in options}
        self._pieces: list[Piece] = []
        self._field = ""
        self._headers: dict[bytes, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._header_bytes = 0
        self._value = bytearray()
        self._seen: set[str] = set()
        self._ended = False
        self._parts = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _invalid(f"The multipart boundary can't be used: {error}.") from None

    @classmethod
    def of(
        cls, content_type: str, several: bool = False, options: Collection[str] = ()
    ) -> Self | None:
        """A parser if the content type is multipart/form-data, None for a raw body."""
        if len(content_type) > _LONGEST_TYPE:
            raise _invalid("The Content-Type is too long.")
        kind, given = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            return None
        boundary = given.get(b"boundary")
        if not boundary:
            raise _invalid("The Content-Type names no multipart boundary.")
        return cls(boundary, several, options)

    @property
    def name(self) -> str | None:
        """The part `name` if there was one, else the own name of a file that came alone."""
        own = self.filenames[0] if len(self.filenames) == 1 else None
        return self.given_name or own

    async def read(self, body: AsyncIterator[bytes], overhead: int) -> AsyncIterator[Piece]:
        """The files' bytes as they arrive.

        Args:
            body: The request's body.
            overhead: How many bytes may be something else than the files.
        """
        around = 0
        async for chunk in body:
            self._pieces = []
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise _invalid(f"The multipart body can't be parsed: {error}.") from None
            around += len(chunk) - sum(len(piece.data) for piece in self._pieces)
            if around > overhead:
                raise _invalid(f"More than {overhead} bytes lie outside the file parts.")
            for piece in self._pieces:
                yield piece
        if not self._ended:
            raise SecateurError(
                "upload_incomplete", "The multipart body ends before its closing boundary."
            )
        if "file" not in self._seen:
            raise _invalid("The multipart body has no part named file.")

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise _invalid(f"There are more than {_MOST_PARTS} parts.")
        self._headers, self._header_bytes = {}, 0
        self._value = bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._bound_header(end - start)
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._bound_header(end - start)
        self._header_value += data[start:end]

    def _bound_header(self, more: int) -> None:
        self._header_bytes += more
        if self._header_bytes > _LONGEST_HEADERS:
            raise _invalid("The headers of a part are too long.")

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    def _on_headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition.decode("latin-1"))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or self._field not in ("file", "name", *self.options):
            raise _invalid(f"The part {self._field[:60]!r} is not expected.", where=self._field)
        repeated = self._field in self.options or (self._field == "file" and self._several)
        if self._field in self._seen and not repeated:
            raise _invalid(f"There is more than one part {self._field}.", where=self._field)
        self._seen.add(self._field)
        if self._field == "file":
            if len(self.filenames) >= MOST_FILES:
                raise _invalid(f"There are more than {MOST_FILES} parts file.", where="file")
            given = options.get(b"filename")
            self.filenames.append(None if given is None else given.decode("utf-8", "replace"))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field == "file":
            self._pieces.append(Piece(len(self.filenames) - 1, data[start:end]))
            return
        self._value += data[start:end]
        if len(self._value) > _LONGEST_FIELD:
            raise _invalid(f"The part {self._field} is too long.", where=self._field)

    def _on_part_end(self) -> None:
        value = self._value.decode("utf-8", "replace")
        if self._field == "name":
            if len(value) > LONGEST_NAME:
                raise _invalid(
                    f"The part name has more than {LONGEST_NAME} characters.", where="name"
                )
            self.given_name = value
        elif self._field in self.options:
            self._add_option(value)

    def _add_option(self, value: str) -> None:
        given = self.options[self._field]
        if len(value) > LONGEST_OPTION:
            message = f"The part {self._field} has more than {LONGEST_OPTION} characters."
            raise _invalid(message, where=self._field)
        if len(given) >= MOST_OPTIONS:
            message = f"There are more than {MOST_OPTIONS} parts {self._field}."
            raise _invalid(message, where=self._field)
        given.append(value)

    def _on_end(self) -> None:
        self._ended = True


def _invalid(message: str, where: str | None = None) -> SecateurError:
    return SecateurError(
        "multipart_invalid",
        message,
        where=where,
        hint="Send one part named file with the file's bytes (a model of several files: one part "
        "named file for each, with its filename) and, if you like, a part named name; or send the "
        "bytes as the raw body.",
    )
