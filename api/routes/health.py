"""Liveness and readiness. Readiness is about this process: database and blobs, not the workers."""

import os
from datetime import timedelta

from fastapi import APIRouter
from sqlalchemy import func, select

from api.dependencies import Parts, Service
from api.schemas import Control, Health, Readiness, Sandbox, Workers
from pruning.errors import SecateurError
from store import failures, leaders, roster
from store.clock import utcnow
from store.migrate import is_current
from store.tables import Attempt

router = APIRouter(tags=["operations"])

_LATELY = timedelta(minutes=10)


@router.get("/healthz")
async def get_health() -> Health:
    """Alive: the process answers."""
    return Health()


@router.get("/readyz")
def get_readiness(parts: Parts) -> Readiness:
    """Ready: the database answers and has the newest schema, and blobs can be written.

    `control`, `workers` and `sandbox` tell of the other processes as the store knows them; a job
    submitted while they are away waits for them, so they do not make this service unready.
    """
    try:
        current = is_current(parts.database)
    except Exception as error:
        known = failures.told(error)
        raise known or _unavailable("database", "The database does not answer.") from error
    if not current:
        raise _unavailable(
            "database", "The database lacks migrations.", "Run python -m store.migrate."
        )
    if not os.access(parts.settings.blob_dir, os.R_OK | os.W_OK | os.X_OK):
        raise _unavailable("blobs", "The blob folder can't be written.")
    return Readiness(
        control=Control(alive=_control_alive(parts)),
        workers=_workers(parts),
        sandbox=_sandbox(parts),
    )


def _control_alive(parts: Service) -> bool:
    """Whether a control process has shown for the time of a lead that it lives."""
    within = timedelta(seconds=parts.settings.leader_seconds)
    with parts.database.read() as session:
        return leaders.alive(session, "control", utcnow(), within)


def _workers(parts: Service) -> Workers:
    with parts.database.read() as session:
        query = select(func.count(func.distinct(Attempt.worker_id))).where(
            Attempt.finished_at.is_(None) | (Attempt.finished_at > utcnow() - _LATELY)
        )
        alive = sum(roster.levels(session, utcnow()).values())
        return Workers(alive=alive, seen=session.scalar(query) or 0)


def _sandbox(parts: Service) -> Sandbox:
    with parts.database.read() as session:
        return Sandbox(setting=parts.settings.sandbox, levels=roster.levels(session, utcnow()))


def _unavailable(part: str, message: str, hint: str | None = None) -> SecateurError:
    return SecateurError("unavailable", message, where=part, hint=hint or "Try again shortly.")
