"""What a user imports: the typed client of the service, and its one exception type.

Importing this package needs the base install alone: no torch, no numpy, no web framework.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateur.async_client import AsyncClient
    from secateur.client import Client
    from secateur.errors import SecateurError

    __version__: str

__all__ = ["AsyncClient", "Client", "SecateurError", "__version__"]

_HOMES = {
    "AsyncClient": "secateur.async_client",
    "Client": "secateur.client",
    "SecateurError": "secateur.errors",
}


def __getattr__(name: str) -> Any:
    # Everything on first use: what asks for the version alone, or for a help text, is quick.
    if name == "__version__":
        return _version()
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("secateur")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+source"
