"""What a request's head may look like, where the parser takes more than one reading of it.

llhttp in its strict mode refuses bare LF, folded lines, a Content-Length beside a
Transfer-Encoding, repeated or signed lengths, spaces before a colon and control characters. What it
leaves is here.
Between this server and a proxy no head may have two meanings (RFC 9112, 11.2).
"""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from pruning.errors import SecateurError

LONGEST_TARGET = 16 << 10
"""Bytes of a request's target: path and query."""

LONGEST_HEAD = 64 << 10
"""Bytes of a request's target and header fields."""

MOST_FIELDS = 100

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "LINK", "UNLINK"}
)
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]{0,300}")
_LENGTH = re.compile(rb"(?:0|[1-9][0-9]{0,18})[ \t]*")
_ABSOLUTE = re.compile(rb"https?://([^/?]+)(.*)", re.IGNORECASE | re.DOTALL)

Fields = list[tuple[bytes, bytes]]


@dataclass
class Head:
    """A head as it arrives."""

    target: bytes = b""
    fields: Fields = field(default_factory=list)
    size: int = 0

    def add_target(self, piece: bytes) -> None:
        """Adds to the target.

        Raises:
            SecateurError: `head_too_large`.
        """
        self.target += piece
        self._grow(len(piece))
        if len(self.target) > LONGEST_TARGET:
            raise _too_large(f"The target is longer than {LONGEST_TARGET} bytes.")

    def add_field(self, name: bytes, value: bytes) -> None:
        """Adds a header field.

        Raises:
            SecateurError: `head_too_large`.
        """
        self.fields.append((name.lower(), value))
        # What a field takes beyond its text keeps many empty ones from being free.
        self._grow(len(name) + len(value) + 32)
        if len(self.fields) > MOST_FIELDS:
            raise _too_large(f"There are more than {MOST_FIELDS} header fields.")

    def _grow(self, size: int) -> None:
        self.size += size
        if self.size > LONGEST_HEAD:
            raise too_large()


@dataclass(frozen=True)
class Request:
    """What a complete, accepted head says.

    Args:
        path: Decoded.
        raw_path: Path of the target, still percent-encoded.
        query: Query of the target, without the question mark.
        expects_continue: Whether the client waits for 100 before it sends the body.
        has_body: Whether a body follows, be it empty.
    """

    path: str
    raw_path: bytes
    query: bytes
    expects_continue: bool
    has_body: bool


def accept(head: Head, method: str, version: str) -> Request:
    """The request that the head makes.

    Args:
        head: All of it.
        method: Name of the request's method, such as `GET`.
        version: Version of HTTP, such as `1.1`.

    Raises:
        SecateurError: `request_malformed`.
    """
    if version not in ("1.1", "1.0"):
        raise malformed("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if method not in _METHODS:
        raise malformed("The method is none that is known here.")
    hosts = [value for name, value in head.fields if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise malformed("A request has exactly one Host.")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise malformed("The Host is not one.")
    raw_path, query = _target(head.target, method, hosts)
    path = raw_path.decode("ascii")
    return Request(
        unquote(path) if "%" in path else path,
        raw_path,
        query,
        version == "1.1"
        and any(n == b"expect" and v.lower() == b"100-continue" for n, v in head.fields),
        _framed(head.fields, version),
    )


def _framed(fields: Fields, version: str) -> bool:
    """Whether a body follows. The parser has checked most; a list of codings it has not."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if codings and (lengths or len(codings) > 1 or version == "1.0"):
        raise malformed("Transfer-Encoding goes without Content-Length, once, and in HTTP/1.1.")
    if codings and codings[0].strip(b" \t").lower() != b"chunked":
        raise malformed("The only Transfer-Encoding that is read here is chunked.")
    if len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
        raise malformed("Content-Length is not one number.")
    return bool(codings) or (bool(lengths) and int(lengths[0]) > 0)


def _target(target: bytes, method: str, hosts: list[bytes]) -> tuple[bytes, bytes]:
    """Path and query of origin-form, of absolute-form for this host, or of `*` for OPTIONS."""
    if b"#" in target:
        raise malformed("A request's target has no fragment.")
    if found := _ABSOLUTE.fullmatch(target):
        authority, target = found.groups()
        if hosts and authority.lower() != hosts[0].lower():
            raise malformed("The target names another host than the Host field.")
        target = target if target.startswith(b"/") else b"/" + target
    if not target.startswith(b"/") and (target, method) != (b"*", "OPTIONS"):
        raise malformed("The target is no path.")
    if not target.isascii():
        raise malformed("The target holds bytes outside ASCII; encode them with %.")
    path, _, query = target.partition(b"?")
    return path, query


def malformed(message: str) -> SecateurError:
    """The 400 for bytes that are not one request to everybody who reads them."""
    return SecateurError(
        "request_malformed", message, hint="Send HTTP/1.1 as RFC 9112 has it; the connection ends."
    )


def too_large() -> SecateurError:
    """The 431 for a head over the limit."""
    return _too_large(f"The head of the request is longer than {LONGEST_HEAD} bytes.")


def _too_large(message: str) -> SecateurError:
    return SecateurError("head_too_large", message, hint="Send fewer or shorter header fields.")
