"""What callers may pass, turned into what the service takes."""

from collections.abc import Mapping
from typing import Any

from secateur.errors import SecateurError
from secateur.resources import Dataset, Job, Key, Model

Reference = str | Model | Dataset | Job | Key
Named = Reference | Mapping[Any, Reference]

ROLES = ("calibration", "training", "evaluation")


def ident(item: Reference) -> str:
    """The id of a resource, or the id itself."""
    return item if isinstance(item, str) else item.id


def job_request(
    model: Reference,
    data: Named,
    spec: Mapping[str, Any] | None = None,
    name: str | None = None,
    priority: int | None = None,
    rewind_to: Reference | None = None,
) -> dict[str, Any]:
    """The body of POST /v1/jobs and /v1/plans.

    Raises:
        SecateurError: `usage` for a role that data do not have.
    """
    roles = dict(data) if isinstance(data, Mapping) else {"calibration": data}
    unknown = sorted(set(roles) - set(ROLES))
    if unknown:
        raise SecateurError(
            "usage",
            f"Data have no role {unknown[0]!r}.",
            where="data",
            hint=f"The roles are {', '.join(ROLES)}.",
        )
    return {
        "model": ident(model),
        "data": {role: ident(item) for role, item in roles.items()},
        "spec": dict(spec or {}),
        "name": name,
        "priority": priority,
        "rewind_to": None if rewind_to is None else ident(rewind_to),
    }
