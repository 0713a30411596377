"""Which gate a request goes through, before the route runs and before a byte of an upload is read.

Not counted are /healthz, and GET of a single resource: those are answered together by one reader,
which has a bound of its own. Event streams are counted by their route, which knows them.
"""

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import OPEN_PATHS, PRINCIPAL
from api.bodies import UPLOAD_PATHS, announced_length
from api.gates import Gate, Gates
from api.problems import ProblemResponse
from pruning.errors import SecateurError

_BY_READER = re.compile(r"/v1/(?:models|datasets|jobs)/[^/]+|/v1/jobs/[^/]+/events|/healthz")
_DOWNLOAD = re.compile(r"/v1/jobs/[^/]+/(?:artifacts/.+|report)")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Admission:
    """Lets a request through when there is a place for it; else it is a 503 problem.

    Args:
        app: What comes after.
        gates: Those of this process.
    """

    def __init__(self, app: ASGIApp, gates: Gates) -> None:
        self.app = app
        self.gates = gates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        gate = self._gate(scope) if scope["type"] == "http" else None
        if gate is None:
            await self.app(scope, receive, send)
            return
        owner = scope.get(PRINCIPAL)
        size = announced_length(Headers(scope=scope)) if gate is self.gates.uploads else 0
        try:
            place = gate.place(owner.project_id if owner else "", size)
            await place.__aenter__()
        except SecateurError as error:
            await ProblemResponse(error, scope)(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        finally:
            await place.__aexit__(None, None, None)

    def _gate(self, scope: Scope) -> Gate | None:
        path, method = scope["path"], scope["method"]
        if method == "POST" and path in UPLOAD_PATHS:
            return self.gates.uploads
        if method not in _READING:
            return self.gates.writes
        if _BY_READER.fullmatch(path):
            return None
        if _DOWNLOAD.fullmatch(path):
            return self.gates.downloads
        return self.gates.operations if path in OPEN_PATHS else self.gates.reads
