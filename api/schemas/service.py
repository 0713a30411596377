"""Keys, the catalogue, limits, health."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.schemas.described import Answer, Request
from api.schemas.examples import KEY_ID, WHEN
from api.schemas.pages import Page


class KeyRequest(Request):
    """A new API key."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "laptop"}]})

    name: str = Field("", max_length=200)


class Key(Answer):
    """An API key; the secret itself is not stored."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": KEY_ID,
                "object": "key",
                "name": "laptop",
                "current": True,
                "created_at": WHEN,
                "start": "sct_Yk3x",
            }
        }
    )

    id: str
    object: Literal["key"] = "key"
    name: str
    current: bool = Field(description="Whether this request was made with it.")
    created_at: datetime
    start: str = Field(description="The first characters of the secret, to tell keys apart.")


class NewKey(Key):
    """A key just made: the only time its secret is shown."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": KEY_ID,
                "object": "key",
                "name": "laptop",
                "current": False,
                "created_at": WHEN,
                "start": "sct_Yk3x",
                "secret": "sct_...",
            }
        }
    )

    secret: str


class KeyPage(Page[Key]):
    """One page of keys, newest first."""


class Method(Answer):
    """A criterion or a compensation."""

    kind: str
    title: str
    summary: str
    formula: str
    paper: str
    unit: str
    needs: list[str]
    cost: str
    parameters: dict[str, Any] = Field(description="The JSON Schema of its fields.")


class Catalogue(Answer):
    """Every method that a spec can name."""

    criteria: list[Method]
    compensations: list[Method]
    spec: dict[str, Any] = Field(description="The JSON Schema of a whole spec.")


class Limits(Answer):
    """What this service takes."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model_bytes": 2147483648,
                "dataset_bytes": 2147483648,
                "json_bytes": 1048576,
                "json_values": 4000,
                "spec_values": 2000,
                "patterns": 256,
                "page_items": 200,
                "queued_jobs": 1000,
                "wall_seconds": 3600,
                "attempts": 3,
                "keys": 100,
                "uploads_at_once": 12,
                "event_streams": 500,
            }
        }
    )

    model_bytes: int
    dataset_bytes: int
    json_bytes: int
    json_values: int = Field(description="Keys and values of one JSON body.")
    spec_values: int = Field(description="Keys and values of one spec.")
    patterns: int = Field(description="Patterns of names in one list of a spec.")
    page_items: int
    queued_jobs: int
    wall_seconds: float
    attempts: int
    keys: int = Field(description="Keys of one project.")
    uploads_at_once: int = Field(description="Uploads of one project in progress.")
    event_streams: int = Field(description="Event streams of one project.")


class Health(Answer):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Control(Answer):
    """Relay and reaper, as far as the store knows of them; informational."""

    alive: bool


class Workers(Answer):
    """Worker processes; informational."""

    alive: int = Field(description="Worker processes that live: each runs one job at a time.")
    seen: int = Field(description="Of those that hold a job or finished one in ten minutes.")


class Sandbox(Answer):
    """What uploads are opened in: the setting of this service, and what its workers have."""

    setting: Literal["required", "best", "off"]
    levels: dict[str, int] = Field(
        description="Level in force (bubblewrap, landlock, limits) -> living worker processes."
    )


class Readiness(Answer):
    """Database and blobs work; requests can be served."""

    status: Literal["ready"] = "ready"
    database: Literal["ok"] = "ok"
    blobs: Literal["ok"] = "ok"
    control: Control
    workers: Workers
    sandbox: Sandbox
