"""What every part of report.json is made of. Torch-free."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _null_if_non_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_null_if_non_finite)]
"""A float, or null where it was not computed or was not finite (JSON knows neither NaN nor Inf)."""


class Section(BaseModel):
    """A mapping of the report; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="null", validate_assignment=True)
