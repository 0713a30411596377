"""What a job would do: `POST /v1/plans`."""

from fastapi import APIRouter

from api.dependencies import Caller, Db
from api.json_bodies import JsonRoute
from api.schemas import PlanRequest
from api.submission import check
from pruning.plan import Plan

router = APIRouter(prefix="/v1/plans", tags=["plans"], route_class=JsonRoute)


@router.post("")
def create_plan(body: PlanRequest, database: Db, caller: Caller) -> Plan:
    """Check and price a job without running it; refuses what POST /v1/jobs would refuse."""
    with database.read() as session:
        return check(session, caller.project_id, body).plan
