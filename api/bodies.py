"""Bounds on every body that is not an upload: of its bytes, its values and its time."""

from collections.abc import MutableSequence

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import PRINCIPAL
from api.content import Announced
from api.gates import Budget
from api.json_extent import check_extent
from api.problems import ProblemResponse
from pruning.errors import SecateurError

JSON_LIMIT = 1 << 20
UPLOAD_PATHS = frozenset({"/v1/models", "/v1/datasets"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class BoundedBodies:
    """Reads a small body whole before the route runs, and refuses a larger one with 413.

    Uploads pass through untouched: their routes stream the body and hold them to their own limit.

    Args:
        app: What comes after.
        seconds: For the whole body.
        budget: Bytes that the bodies of all requests may hold together.
        limit: Bytes of one body.
    """

    def __init__(
        self, app: ASGIApp, seconds: float, budget: Budget, limit: int = JSON_LIMIT
    ) -> None:
        self.app = app
        self.budget = budget
        self.seconds = seconds
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if (
            scope["type"] != "http"
            or scope["method"] not in _WITH_BODY
            or (scope["method"] == "POST" and scope["path"] in UPLOAD_PATHS)
        ):
            await self.app(scope, receive, send)
            return
        owner = scope.get(PRINCIPAL)
        held = _Held(self.budget, owner.project_id if owner else "")
        try:
            messages = await self._accepted(scope, receive, send, held)
            if messages is not None:
                await self.app(scope, _replayed(messages, receive), send)
        finally:
            held.give_back()

    async def _accepted(
        self, scope: Scope, receive: Receive, send: Send, held: "_Held"
    ) -> list[Message] | None:
        """The whole body; None where it was refused, or its client went away."""
        try:
            with anyio.fail_after(self.seconds):
                return await self._read(Headers(scope=scope), receive, held)
        except TimeoutError:
            await ProblemResponse(_too_slow(self.seconds), scope)(scope, receive, send)
        except SecateurError as error:
            await ProblemResponse(error, scope)(scope, receive, send)
        except ClientDisconnect:
            pass
        return None

    async def _read(self, headers: Headers, receive: Receive, held: "_Held") -> list[Message]:
        announced = Announced(headers)
        if announced_length(headers) > self.limit:
            raise too_large(self.limit)
        messages: list[Message] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body = message.get("body", b"")
            held.take(len(body))
            if held.size > self.limit:
                raise too_large(self.limit)
            announced.update(body)
            messages.append(message)
            if not message.get("more_body", False):
                break
        announced.check()
        check_extent(b"".join(message.get("body", b"") for message in messages))
        return messages


class _Held:
    """What one request holds of the budget."""

    def __init__(self, budget: Budget, project: str) -> None:
        self.budget, self.project, self.size = budget, project, 0

    def take(self, size: int) -> None:
        self.budget.take(self.project, size)
        self.size += size

    def give_back(self) -> None:
        self.budget.give_back(self.project, self.size)


def _replayed(messages: MutableSequence[Message], receive: Receive) -> Receive:
    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return again


def _too_slow(seconds: float) -> SecateurError:
    return SecateurError(
        "request_timeout",
        f"The body did not arrive within {seconds:g} s.",
        where="body",
        hint="Send it again.",
    )


def announced_length(headers: Headers) -> int:
    """What Content-Length says, 0 without one."""
    announced = headers.get("content-length", "")
    return int(announced[:20]) if announced.isdecimal() else 0


def too_large(limit: int) -> SecateurError:
    """The 413 for a body over `limit` bytes."""
    return SecateurError(
        "too_large",
        f"The body is larger than the {limit} bytes that are taken here.",
        where="body",
        hint="GET /v1/limits lists the limits.",
        limit=limit,
    )
