"""Plain JSON values whose shape the document tells: typed for a reader, not validated again."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Described:
    """Shows a field of plain values as what `shape` is, a model or a union of models.

    The store keeps what was checked when it was written. It is passed on as it is, also where an
    earlier version wrote it, and the document says what it looks like.
    """

    shape: Any

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema of the shape, as entries of a list have it: a reference to a model."""
        listed = core_schema.list_schema(TypeAdapter(self.shape).core_schema)
        shown: JsonSchemaValue = handler(listed)["items"]
        return shown


class Request(BaseModel):
    """What a client sends: unknown fields are errors."""

    model_config = {"extra": "forbid"}


class Answer(BaseModel):
    """What the service sends: every field is there."""

    model_config = {"json_schema_serialization_defaults_required": True}


Values = dict[str, Any]
