"""What this service takes: `GET /v1/limits`."""

from fastapi import APIRouter

from api.bodies import JSON_LIMIT
from api.dependencies import PAGE_LIMIT, Parts
from api.gates import uploads_of_a_project
from api.json_extent import MOST_VALUES as JSON_VALUES
from api.schemas import Limits
from pruning.spec.extent import MOST_PATTERNS, MOST_VALUES

router = APIRouter(prefix="/v1/limits", tags=["catalogue"])


@router.get("")
def get_limits(parts: Parts) -> Limits:
    """Sizes of uploads and requests, what may be at work at once, time and attempts of a job."""
    settings = parts.settings
    return Limits(
        model_bytes=settings.model_bytes_limit,
        dataset_bytes=settings.dataset_bytes_limit,
        json_bytes=JSON_LIMIT,
        json_values=JSON_VALUES,
        spec_values=MOST_VALUES,
        patterns=MOST_PATTERNS,
        page_items=PAGE_LIMIT,
        queued_jobs=settings.queued_jobs_limit,
        wall_seconds=settings.wall_seconds,
        attempts=settings.max_attempts,
        keys=settings.keys_limit,
        uploads_at_once=uploads_of_a_project(settings),
        event_streams=settings.project_event_streams_limit,
    )
