"""Errors: the problem that answers a request, and the error that a job or an upload keeps."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.failures import failure
from api.schemas.described import Answer


class FieldError(BaseModel):
    """One wrong field."""

    where: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem+json: the shape of every error. Fields without a value are left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "/problems/not_found",
                "title": "No such thing here",
                "status": 404,
                "code": "not_found",
                "detail": "There is nothing at this path.",
                "instance": "/v1/nothing",
                "hint": "/openapi.json lists every path.",
                "request_id": "req_06f3k2p5q7a2c4e6g7j2k4m6p7",
            }
        }
    )

    type: str = Field(description="A stable relative URI: /problems/ and the code.")
    title: str = Field(description="What the code means.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(description="Stable; programs should branch on this.")
    detail: str = Field(description="What is wrong, with the values that made it so.")
    instance: str = Field(description="The path of the request.")
    where: str | None = Field(None, description="The field, layer, tensor or header.")
    hint: str | None = Field(None, description="What to do next.")
    errors: list[FieldError] | None = Field(None, description="All wrong fields.")
    details: dict[str, Any] | None = Field(None, description="Further values for programs.")
    request_id: str


class Failure(Answer):
    """Why an upload was rejected, a job failed or an attempt ended: as a problem says it."""

    type: str = Field(description="A stable relative URI: /problems/ and the code.")
    title: str = Field(description="What the code means.")
    code: str = Field(description="Stable; programs should branch on this.")
    detail: str = Field(description="What is wrong, with the values that made it so.")
    message: str = Field(description="The same as `detail`.")
    where: str | None = Field(None, description="The field, layer, tensor or file.")
    hint: str | None = Field(None, description="What to do next.")
    details: dict[str, Any] | None = Field(
        None, description="Further values for programs; `last_error` is a failure itself."
    )

    @model_validator(mode="before")
    @classmethod
    def _as_kept(cls, kept: Any) -> Any:
        return failure(kept) if isinstance(kept, dict) else kept
