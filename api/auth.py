"""Authentication as pure ASGI: decided from the headers, before a byte of the body is asked for."""

from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.failed_keys import FailedKeys
from api.http.addresses import client_of
from api.http.connection import CONNECTION
from api.problems import ProblemResponse
from pruning.errors import SecateurError
from store.queries.keys import Principal
from store.settings import Settings

PRINCIPAL = "secateur.principal"
_PAGE = ("/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css")
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", *_PAGE})
_LONGEST_SECRET = 256


class Authentication:
    """Lets a request pass with a known key, or to an open path; all else is a 401 problem.

    Every request is looked up, so that a key that was revoked, by whatever process, is refused from
    then on. Nothing here may remember an owner.

    Args:
        app: What comes after.
        authenticate: From a secret to its owner, or None.
        settings: How many unknown keys an address may show, and which proxies are trusted.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticate: Callable[[str], Awaitable[Principal | None]],
        settings: Settings,
    ) -> None:
        self.app = app
        self.authenticate = authenticate
        self.proxies = settings.trusted_proxies
        self.failed = FailedKeys(settings.failed_keys_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        try:
            secret = bearer_secret(Headers(scope=scope))
            with self.failed.attempt(client_of(scope, self.proxies), secret) as attempt:
                owner = await self.authenticate(secret)
                attempt.known = owner is not None
            if owner is None:
                raise _refusal("The API key is not known here.")
        except SecateurError as error:
            await ProblemResponse(error, scope)(scope, receive, send)
            return
        if (connection := scope.get(CONNECTION)) is not None:
            connection.authenticated()
        scope[PRINCIPAL] = owner
        await self.app(scope, receive, send)


def bearer_secret(headers: Headers) -> str:
    """The secret in `Authorization: Bearer ...`.

    Raises:
        SecateurError: `unauthenticated` if the header is missing, repeated or of another form.
    """
    values = headers.getlist("authorization")
    if not values:
        raise _refusal("The request carries no API key.")
    scheme, _, secret = values[0].strip().partition(" ")
    secret = secret.strip()
    if (
        len(values) > 1
        or scheme.lower() != "bearer"
        or not secret.startswith("sct_")
        or len(secret) > _LONGEST_SECRET
        or not secret.isascii()
    ):
        raise _refusal("The Authorization header does not hold a bearer API key.")
    return secret


async def principal(request: Request) -> Principal:
    """Dependency: whose request this is. Not a plain function: that would be run in a thread."""
    owner: Principal = request.scope[PRINCIPAL]
    return owner


def _refusal(message: str) -> SecateurError:
    return SecateurError(
        "unauthenticated",
        message,
        hint="Send the header Authorization: Bearer sct_...; `secateur up` prints where the first "
        "key is, POST /v1/keys makes more.",
    )
