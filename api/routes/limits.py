"""What this service takes: `GET /v1/limits`."""

from fastapi import APIRouter

from api.bodies import JSON_LIMIT
from api.dependencies import PAGE_LIMIT, Parts
from api.schemas import Limits

router = APIRouter(prefix="/v1/limits", tags=["catalogue"])


@router.get("")
def get_limits(parts: Parts) -> Limits:
    """Sizes of uploads and requests, time and attempts of a job."""
    settings = parts.settings
    return Limits(
        model_bytes=settings.model_bytes_limit,
        dataset_bytes=settings.dataset_bytes_limit,
        json_bytes=JSON_LIMIT,
        page_items=PAGE_LIMIT,
        queued_jobs=settings.queued_jobs_limit,
        wall_seconds=settings.wall_seconds,
        attempts=settings.max_attempts,
    )
