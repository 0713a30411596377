"""What a spec can name: `GET /v1/criteria`, straight from the torch-free catalogue."""

from fastapi import APIRouter

from api.schemas import Catalogue
from pruning import catalogue
from pruning.spec import Spec

router = APIRouter(prefix="/v1/criteria", tags=["catalogue"])


@router.get("")
def list_criteria() -> Catalogue:
    """Criteria and compensations with formula, paper, needs and cost; the schema of a spec."""
    return Catalogue(
        criteria=[catalogue.describe(*entry) for entry in catalogue.criteria().items()],
        compensations=[catalogue.describe(*entry) for entry in catalogue.compensations().items()],
        spec=Spec.model_json_schema(),
    )
