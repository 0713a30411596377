"""Answers to what never becomes a request: a problem, as bytes, with an id that is in the log."""

import http
import logging
import secrets

from api.context import PROTECTION
from api.problems import REQUEST_ID, ProblemResponse
from pruning.errors import SecateurError

log = logging.getLogger("secateur.api.http")


def refusal(error: SecateurError, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """The whole response; the connection ends after it."""
    request_id = f"req_{secrets.token_hex(12)}"
    response = ProblemResponse(error, {REQUEST_ID: request_id})
    fields = [
        *default_headers,
        *response.raw_headers,
        *((name.lower().encode(), value.encode()) for name, value in PROTECTION.items()),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    log.info("refused: %s request_id=%s", error.code, request_id)
    status = http.HTTPStatus(error.status)
    return b"".join(
        [
            f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode(),
            *(b"%b: %b\r\n" % pair for pair in fields),
            b"\r\n",
            bytes(response.body),
        ]
    )


def log_refusal(address: str, error: SecateurError) -> None:
    """One line for the operator, who else would see only a connection that ended."""
    log.info("%s: %s: %s", address or "-", error.code, error.message)
