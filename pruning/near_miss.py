"""What a name was probably meant to be, at a price that does not depend on who asks. Torch-free."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

LONGEST = 64
"""Characters of names that are compared; the time of a comparison grows with their product."""

_MOST = 400


def near_miss(given: object, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that is most like a given one; None where none is, or it is no plain name.

    Args:
        given: What was written.
        known: What could have been meant; the first 400 are compared.
        cutoff: Likeness from 0 to 1 that it takes (Ratcliff and Metzener 1988).
    """
    if not isinstance(given, str) or len(given) > LONGEST:
        return None
    names = [name for name in islice(known, _MOST) if len(name) <= LONGEST]
    return next(iter(get_close_matches(given, names, n=1, cutoff=cutoff)), None)
