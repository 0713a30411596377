"""The outermost layer: request ids, the access log, metrics, and the last net under every route."""

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import RequestMetrics
from api.problems import REQUEST_ID, ProblemResponse, unexpected

log = logging.getLogger("secateur.api.access")
PROTECTION = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""What keeps a browser from taking an answer for a page, or showing it inside another's.

Pages of our own bring a content policy that allows what they need.
"""

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")


class RequestContext:
    """Gives each request an id, which the response carries as X-Request-ID.

    The client's own X-Request-ID is kept if it is short and plain. An exception that nothing else
    answered is told as `problems.unexpected` says; a response that has begun can only be cut off.
    """

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope[REQUEST_ID] = request_id
        started = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers.setdefault("Cache-Control", "no-store")
                for name, value in PROTECTION.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except Exception as error:
            problem = unexpected(scope, error)
            if status:
                raise
            await ProblemResponse(problem, scope)(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - started
            self.metrics.observe(scope, status, seconds)
            log.info(
                "%s %r %s %.1f ms request_id=%s",
                scope["method"],
                scope["path"],
                status or "-",
                seconds * 1e3,
                request_id,
            )


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    if _PLAIN.fullmatch(given):
        return given
    return f"req_{secrets.token_hex(12)}"
