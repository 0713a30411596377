"""What the head of a request announces of its body: no coding, and digests that it must have.

`Content-Digest` and `Repr-Digest` (RFC 9530) are over the bytes as they are sent, boundaries of a
multipart body included; the two are the same where no coding is taken. `X-Content-SHA256`, which
uploads know too, is over the file alone.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from pruning.errors import SecateurError

_FIELDS = ("Content-Digest", "Repr-Digest")
_ALGORITHMS = {"sha-256": "sha256", "sha-512": "sha512"}
"""Those in use today (RFC 9530, 5); others are not checked, as the standard has it."""

_LONGEST = 4096
_KEY = r"[a-z*][a-z0-9_.*-]*"
_PARAMETER = rf'[ ]*;[ ]*{_KEY}(?:=(?:"[^"\\]*"|[^\s",;]+))?'
_MEMBER = re.compile(rf"[ \t]*({_KEY})=:([A-Za-z0-9+/]*={{0,2}}):(?:{_PARAMETER})*[ \t]*(?:,|$)")


@dataclass(frozen=True)
class _Expected:
    field: str
    algorithm: str
    digest: bytes
    hasher: Any


class Announced:
    """The digests that a body must have; sees its bytes as they come.

    Raises:
        SecateurError: `unsupported_format` for a body in a coding such as gzip, `invalid_request`
            for a digest that is none.
    """

    def __init__(self, headers: Headers) -> None:
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", ""):
            raise SecateurError(
                "unsupported_format",
                f"A body in the coding {coding[:60]!r} is not read here.",
                where="Content-Encoding",
                hint="Send the bytes themselves, without a coding.",
            )
        self._expected = [
            _Expected(field, algorithm, digest, hashlib.new(_ALGORITHMS[algorithm]))
            for field in _FIELDS
            for algorithm, digest in _digests(field, headers.getlist(field)).items()
        ]

    def update(self, data: bytes) -> None:
        """Some more bytes of the body."""
        for expected in self._expected:
            expected.hasher.update(data)

    def check(self) -> None:
        """The body is complete.

        Raises:
            SecateurError: `digest_mismatch`.
        """
        for expected in self._expected:
            found = expected.hasher.digest()
            if found != expected.digest:
                raise SecateurError(
                    "digest_mismatch",
                    f"The body that arrived has the {expected.algorithm} {_shown(found)}, not the "
                    f"announced {_shown(expected.digest)}.",
                    where=expected.field,
                    hint="Send the request again.",
                )

    async def checked(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks of the body; raises after the last one if it is not what was announced."""
        async for chunk in chunks:
            self.update(chunk)
            yield chunk
        self.check()


def repr_digest(sha256: str) -> str:
    """The value of Repr-Digest for a file with this SHA-256, in hexadecimal digits."""
    return f"sha-256={_shown(bytes.fromhex(sha256))}"


def _shown(digest: bytes) -> str:
    return f":{base64.b64encode(digest).decode()}:"


def _digests(field: str, values: list[str]) -> dict[str, bytes]:
    """Algorithm -> digest, of those that are checked; the last one counts if one comes twice."""
    text = ", ".join(values)
    found: dict[str, bytes] = {}
    place = 0
    while place < len(text):
        member = _MEMBER.match(text, place) if len(text) <= _LONGEST else None
        if member is None:
            raise _malformed(field)
        place = member.end()
        if member[1] in _ALGORITHMS:
            found[member[1]] = _decoded(field, member[1], member[2])
    return found


def _decoded(field: str, algorithm: str, text: str) -> bytes:
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise _malformed(field) from None
    if len(digest) != hashlib.new(_ALGORITHMS[algorithm]).digest_size:
        raise _malformed(field)
    return digest


def _malformed(field: str) -> SecateurError:
    return SecateurError(
        "invalid_request",
        f"{field} does not hold digests.",
        where=field,
        hint="Write sha-256=:BASE64: or sha-512=:BASE64:, as RFC 9530 has it, or leave it out.",
    )
