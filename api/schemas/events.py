"""Events of a job as they are shown: those of `pruning.events`, with a number and a time."""

from datetime import datetime
from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from api.schemas.described import Answer, Described, Values
from api.schemas.errors import Failure
from api.schemas.examples import WHEN
from pruning import events

_SEQ: Any = (int, Field(description="Its number within the job, from 1 without gaps."))
_LAST_SEQ: Any = (int, Field(description="The number of the last event: this one has none."))
_AT: Any = (datetime, Field(description="When it happened."))
_WHY: Any = (Failure | None, Field(None, description="Why the job failed, or an attempt was lost."))


def _shown(event: type[BaseModel], **fields: Any) -> Any:
    """The event with the fields that the service adds."""
    return create_model(event.__name__, __base__=event, __doc__=event.__doc__, **fields)


_STORED = (
    events.PhaseEvent,
    events.ProgressEvent,
    events.AliveEvent,
    events.MetricEvent,
    events.WarningEvent,
    events.CheckpointEvent,
)
_KINDS = [
    *(_shown(kind, seq=_SEQ, at=_AT) for kind in _STORED),
    _shown(events.StateEvent, seq=_SEQ, at=_AT, error=_WHY),
]
_WAITING = _shown(events.WaitingEvent, seq=_LAST_SEQ)

JobEvent: Any = Annotated[reduce(or_, _KINDS), Field(discriminator="type")]
"""What a page holds. `done` and `failed` are between a worker and its child."""

StreamedEvent: Any = Annotated[reduce(or_, [*_KINDS, _WAITING]), Field(discriminator="type")]
"""What a stream holds: also `waiting`, which is stored nowhere."""


class Events(Answer):
    """A job's events after a number; ask again with `after=next_after`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "data": [
                    {"seq": 1, "at": WHEN, "type": "state", "state": "queued", "attempt": 0},
                    {"seq": 2, "at": WHEN, "type": "phase", "phase": "loading"},
                ],
                "next_after": 2,
                "ended": False,
            }
        }
    )

    data: list[Annotated[Values, Described(JobEvent)]]
    next_after: int
    ended: bool = Field(description="The job is over and nothing follows these.")


STREAM = {
    "schema": {
        "type": "string",
        "description": "Server-Sent Events: `id` is the event's seq, `event` its type, `data` the "
        "event as one line of JSON, of the shape under `x-event`. Comments keep it alive.",
    },
    "x-event": {"$ref": "#/components/schemas/StreamedEvent"},
}
"""How the document tells what a stream holds."""
