"""What both clients share around carrying out operations: connection settings and conversions."""

from typing import Any
from urllib.parse import urlsplit

import httpx

from secateur import __version__
from secateur._flow import Call, Reply
from secateur.config import Connection, first_connect_seconds

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_CONNECT_SECONDS = 5.0


def settings(connection: Connection, timeout: float) -> dict[str, Any]:
    """Arguments of httpx.Client and httpx.AsyncClient."""
    headers = {"User-Agent": f"secateur/{__version__}", "Accept": "application/json"}
    if connection.api_key:
        headers["Authorization"] = f"Bearer {connection.api_key}"
    return {
        "base_url": connection.url,
        "headers": headers,
        "timeout": httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
        # A proxy meant for the outside can't reach a service on this machine.
        "trust_env": urlsplit(connection.url).hostname not in _LOOPBACK,
    }


def arguments(call: Call, timeout: float, answered: bool) -> dict[str, Any]:
    """Arguments of build_request, the body excepted.

    Args:
        call: What is sent.
        timeout: Of the client.
        answered: Whether the service ever has.
    """
    headers = dict(call.headers)
    if call.body is not None and call.body.size is not None:
        headers["Content-Length"] = str(call.body.size)
    found: dict[str, Any] = {"params": dict(call.params), "headers": headers}
    if call.json is not None:
        found["json"] = call.json
    read = timeout if call.read_timeout is None else call.read_timeout
    connect = _CONNECT_SECONDS if answered else first_connect_seconds()
    found["timeout"] = httpx.Timeout(timeout, connect=connect, read=read)
    return found


def reply_of(response: httpx.Response, content: bytes = b"") -> Reply:
    """The response as flows see it."""
    return Reply(response.status_code, response.headers, content)
