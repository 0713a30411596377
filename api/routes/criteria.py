"""What a spec can name: `GET /v1/criteria`, straight from the torch-free catalogue."""

from functools import lru_cache

from fastapi import APIRouter
from starlette.responses import Response

from api.schemas import Catalogue
from pruning import catalogue
from pruning.spec import Spec

router = APIRouter(prefix="/v1/criteria", tags=["catalogue"])


@router.get("", response_model=Catalogue)
def list_criteria() -> Response:
    """Criteria and compensations with formula, paper, needs and cost; the schema of a spec."""
    return Response(_catalogue(), media_type="application/json")


@lru_cache(maxsize=1)
def _catalogue() -> bytes:
    """The same for everybody, and a tenth of a second's work."""
    found = Catalogue(
        criteria=[catalogue.describe(*entry) for entry in catalogue.criteria().items()],
        compensations=[catalogue.describe(*entry) for entry in catalogue.compensations().items()],
        spec=Spec.model_json_schema(),
    )
    return found.model_dump_json().encode()
