"""The unions of criteria and compensations, of what the catalogue finds."""

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field

from pruning import catalogue


def _one_of(declarations: Iterable[type[BaseModel]]) -> Any:
    return reduce(or_, declarations)


if TYPE_CHECKING:
    Criterion = catalogue.Declaration
    Compensation = catalogue.Declaration
else:
    # Built at import from what the catalogue found; a type checker sees the base class.
    Criterion = Annotated[_one_of(catalogue.criteria().values()), Field(discriminator="kind")]
    Compensation = Annotated[
        _one_of(catalogue.compensations().values()), Field(discriminator="kind")
    ]
