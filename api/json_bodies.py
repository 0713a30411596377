"""JSON bodies as RFC 8259 has them: UTF-8, no NaN, no number that becomes infinite, no half pair.

Python's parser takes more. What it alone understands would reach the store, and there become
something else or nothing.
"""

import json
import math
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""Half of a character. In pairs they are one, alone they can't be written as UTF-8 again."""

_SUSPECT = re.compile(r"[eE]\+?\d{3}")
"""A number that may be too large: `json_extent` takes none of 300 digits. Few bodies hold one, and
checking each number costs time."""


class JsonRoute(APIRoute):
    """A route whose body is JSON in the strict sense."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a request that parses strictly."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parsed(await self.body())


def parsed(body: bytes) -> Any:
    """The value that the bytes stand for.

    Raises:
        json.JSONDecodeError: For what is not JSON, and for numbers that become none.
    """
    try:
        text = body.decode()
        real = _real if _SUSPECT.search(text) else None
        value = json.loads(text, parse_constant=_no_number, parse_float=real)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:
        raise json.JSONDecodeError("it holds half of a surrogate pair", "", 0) from None
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("the bytes are not UTF-8", "", error.start) from None
    except RecursionError:
        raise json.JSONDecodeError("it is nested too deep", "", 0) from None


def _no_number(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is no number of JSON", "", 0)


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise json.JSONDecodeError(f"the number {digits[:25]} is too large", "", 0)
    return value
