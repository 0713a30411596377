"""What all parts of a spec have in common."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Unknown fields are errors, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
