"""Query parameters that a route does not know are refused, not ignored.

A misspelt one would change what is answered without a word: `?limt=5` gives fifty. Nor does a
route choose among several values of a parameter that has one.
"""

from collections import Counter
from functools import lru_cache
from typing import Any

from fastapi import FastAPI, Request
from starlette.datastructures import QueryParams

from pruning.errors import SecateurError
from pruning.near_miss import near_miss

_MOST_SHOWN = 20
_LONGEST_NAME = 100


async def known_parameters(request: Request) -> None:
    """Dependency: refuses what the document does not list for this operation.

    Raises:
        SecateurError: `invalid_request`, with an entry for each wrong parameter.
    """
    if not request.scope["query_string"]:
        return
    known = _known(request.app, request.scope["route"].path_format, request.method.lower())
    errors = _wrong(request.query_params, known)
    if errors:
        raise SecateurError(
            "invalid_request",
            errors[0]["message"] + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""),
            where=errors[0]["where"],
            hint=f"There is: {', '.join(known)}." if known else "This path takes no parameters.",
            errors=errors,
        )


def _wrong(given: QueryParams, known: dict[str, bool]) -> list[dict[str, str]]:
    found = []
    for name, count in Counter(name for name, _ in given.multi_items()).items():
        shown = name[:_LONGEST_NAME]
        if name not in known:
            near = near_miss(name, known)
            meant = f" Did you mean {near!r}?" if near else ""
            message = f"There is no parameter {shown!r} here.{meant}"
        elif count > 1 and not known[name]:
            message = f"The parameter {name!r} is given {count} times, and has one value."
        else:
            continue
        found.append({"where": shown, "message": message})
        if len(found) == _MOST_SHOWN:
            break
    return found


@lru_cache(maxsize=256)
def _known(app: FastAPI, path: str, method: str) -> dict[str, bool]:
    """Name -> whether it may come more than once."""
    operation: dict[str, Any] = app.openapi()["paths"].get(path, {}).get(method, {})
    return {
        parameter["name"]: parameter["schema"].get("type") == "array"
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query"
    }
