"""Counts and shares, told apart by how they are written."""

import reprlib
from contextlib import suppress
from numbers import Integral
from typing import Annotated, Any, LiteralString, cast

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError


def _amount(value: Any) -> int | float:
    """A count or a share, told apart by how the number is written: 1 is a count, 1.0 a share.

    YAML gives 1e6 as a text; texts are read as they are written too.
    """
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value) if set(value) & set(".eE") else int(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        value = int(value)  # of NumPy too
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _neither("{value} is neither a count, as 5000, nor a share, as 0.1", value)
    if isinstance(value, int):
        if value < 1:
            raise _neither("{value} is no count: the least is 1. A share is written 0.1", value)
        return value
    if value > 1.0:
        whole = f": write {int(value)}" if value.is_integer() else ", a whole number"
        raise _neither(
            "{value} is written as a share, with a point, and a share is at most 1.0. For a count "
            f"leave the point out{whole}",
            value,
        )
    if not value > 0.0:
        raise _neither("{value} is no share: it lies above 0.0, up to 1.0", value)
    return value


def _count(value: Any) -> int:
    """A count, which no share is."""
    found = _amount(value)
    if isinstance(found, float):
        raise _neither(
            "{value} is written as a share, with a point, and this is a count: leave the point out",
            value,
        )
    return found


def _neither(message: str, value: Any) -> PydanticCustomError:
    return PydanticCustomError(
        "amount", cast(LiteralString, message), {"value": reprlib.repr(value)}
    )


Count = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(gt=0.0, le=1.0, strict=True)]
Amount = Annotated[
    Count | Share,
    BeforeValidator(_amount),
    Field(
        description="A whole number without a point is a count, from 1 on. A number with a point "
        "is a share of what the dense model has, above 0.0 up to 1.0: 1 is one, 1.0 is all."
    ),
]
"""A limit as it stands, or a share of the dense; see `limit_of`."""


WholeNumber = Annotated[Count, BeforeValidator(_count)]
"""A count where a share has no meaning."""


def limit_of(amount: int | float, dense: float) -> int:
    """What an amount comes to: a count itself, a share of what there is without any zeros.

    A share is not lowered by the rounding of its product.
    """
    if isinstance(amount, int):
        return amount
    return int(amount * dense * (1.0 + 1e-12) + 1e-6)
