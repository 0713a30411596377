"""What HTTP has of every route: HEAD where there is GET, and all methods of a path in Allow."""

import anyio
import anyio.lowlevel
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadRequests:
    """Answers HEAD as GET would, without its body (RFC 9110, 9.3.2).

    The route is left once its headers are known, so that a stream that would go on for an hour, or
    a large file, costs no more than that.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        # A range is asked of GET alone (14.2).
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        inner = {**scope, "method": "GET", "headers": headers}
        with anyio.CancelScope() as begun:

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send(message)
                    return
                with anyio.CancelScope(shield=True):
                    await send({"type": "http.response.body"})
                begun.cancel()
                await anyio.lowlevel.checkpoint()

            try:
                await self.app(inner, receive, answer)
            finally:
                if "route" in inner:  # metrics go by it
                    scope["route"] = inner["route"]


def allowed(app: FastAPI, scope: Scope) -> str:
    """The methods that the path of a request has, as the header Allow lists them."""
    path = getattr(scope.get("route"), "path_format", None)
    methods = {method.upper() for method in app.openapi()["paths"].get(path, ())} or {"GET"}
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))
