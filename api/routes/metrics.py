"""Prometheus scrapes `GET /metrics`."""

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

router = APIRouter(tags=["operations"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text format."}},
)
def get_metrics(request: Request) -> Response:
    """Requests by route, jobs by state, age of the oldest queued job."""
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
