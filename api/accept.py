"""Which of two media types a request's Accept header prefers (RFC 9110, 12.5.1)."""

from starlette.requests import Request


def prefers(request: Request, wanted: str, *, over: str) -> bool:
    """Whether `wanted` has a higher quality than `over`; in a tie, whether it alone is named."""
    accept = request.headers.get("accept", "*/*")
    first, first_named = _quality(accept, wanted)
    second, second_named = _quality(accept, over)
    return first > second or (first == second > 0 and first_named and not second_named)


def _quality(accept: str, kind: str) -> tuple[float, bool]:
    """The quality of the most specific range that matches, and whether it is the type itself."""
    ranges = {"*/*": 0, f"{kind.split('/')[0]}/*": 1, kind: 2}
    best, quality = -1, 0.0
    for entry in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in entry.split(";"))
        rank = ranges.get(name, -1)
        if rank > best:
            best, quality = rank, _q(parameters)
    return quality, best == 2


def _q(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return min(max(float(parameter[2:]), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
