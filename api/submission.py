"""From a job request to a checked submission: spec, model, data and plan agree."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from api.schemas import PlanRequest
from pruning.axes import as_inputs
from pruning.facts import DatasetFacts, ModelFacts
from pruning.plan import Plan, plan
from pruning.spec import Spec, default_spec, parse_spec
from pruning.spec.extent import check_extent
from store.queries import datasets, models


@dataclass(frozen=True)
class Submission:
    """A request that can run."""

    spec: Spec
    plan: Plan


def check(session: Session, project_id: str, request: PlanRequest) -> Submission:
    """Checks a request against the stored facts.

    Raises:
        SecateurError: From `parse_spec` and `plan`; `not_found` for an id of nobody or of somebody
            else; `not_ready`, `model_rejected`, `dataset_rejected` for one that can't be used.
    """
    spec = parse_spec(request.spec)
    model = models.usable(session, project_id, request.model, where="model")
    earlier = None
    if request.rewind_to is not None:
        row = models.usable(session, project_id, request.rewind_to, where="rewind_to")
        earlier = ModelFacts.model_validate(row.facts)
    data = {
        role: datasets.usable(session, project_id, dataset_id, where=f"data.{role}")
        for role, dataset_id in request.data.roles().items()
    }
    facts = {role: DatasetFacts.model_validate(row.facts) for role, row in data.items()}
    if not request.spec:
        labelled = facts["calibration"].target is not None
        spec = parse_spec(default_spec(labelled))
    known = ModelFacts.model_validate(model.facts)
    if known.declared:
        # What the upload said holds for its jobs, which may say otherwise.
        said = as_inputs(known.declared)
        spec = parse_spec(spec.model_dump(mode="json") | {"inputs": said | _inputs(spec)})
    return Submission(spec, plan(spec, known, facts, earlier))


def _inputs(spec: Spec) -> dict[str, Any]:
    return {name: part.model_dump(mode="json") for name, part in spec.inputs.items()}


def fingerprint(request: PlanRequest) -> str:
    """SHA-256 of the request as understood: tells a repeated request from a different one.

    Raises:
        SecateurError: `spec_invalid` for a spec that is too large to be one.
    """
    check_extent(request.spec)
    values = request.model_dump(mode="json")
    if values["rewind_to"] is None:
        del values["rewind_to"]  # so that a request of before there was one is known again
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("ascii")).hexdigest()
