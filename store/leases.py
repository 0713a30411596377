"""Leases on jobs: who may run one, for how long, and what the holder may write.

The holder renews a lease by counting the job's beat up. It is lost to whoever has seen the same
beat for `lease_seconds` by a clock of its own (`worker.reaper`); no wall clocks are compared.
Every write of a holder is guarded by the job's id, its fencing token and `state = 'running'` in
one UPDATE. Zero rows mean that the claim is stale: nothing is written and the answer is False.
All functions take the time, and none keeps the transaction open for longer than its statements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pruning.errors import SecateurError
from pruning.events import (
    AliveEvent,
    DoneEvent,
    Event,
    FailedEvent,
    PhaseEvent,
    ProgressEvent,
    StateEvent,
    WaitingEvent,
    WarningEvent,
)
from store import queue, shares
from store.backoff import Backoff
from store.blobs import StoredBlob
from store.claims import Claim, Lease, Outcome, claim_of
from store.ids import new_id
from store.queries import blobs, events
from store.settings import Settings
from store.states import transition
from store.tables import Artifact, Attempt, Checkpoint, Job

_WHOLE = ("fraction", "elapsed_seconds", "eta_seconds")
"""What of an event refers to the whole job."""


def claim(
    session: Session,
    klass: str,
    worker_id: str,
    now: datetime,
    *,
    lease_seconds: float,
    sandbox: str | None = None,
) -> Claim | None:
    """Takes the next queued job of a class (`store.queue`), or None if there is none.

    The attempt's number and the fencing token each grow by one. `sandbox` is the level that the
    worker's processes run under, for the attempt's row.
    """
    turn = queue.next_turn(session, klass, now)
    if turn is None:
        return None
    taken = session.execute(
        sa.update(Job)
        .where(Job.id == turn.job_id, Job.token == turn.token, Job.state == "queued")
        .values(
            token=Job.token + 1,
            attempt=Job.attempt + 1,
            worker_id=worker_id,
            lease_seconds=lease_seconds,
            beat=0,
        )
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).first()
    if taken is None:
        return None
    shares.serve(session, klass, turn.of, turn.time)
    job = session.get_one(Job, turn.job_id, populate_existing=True)
    transition(session, job, "running", now=now)
    session.add(
        Attempt(
            id=new_id("attempt"),
            project_id=job.project_id,
            job_id=job.id,
            number=job.attempt,
            worker_id=worker_id,
            started_at=now,
            sandbox=sandbox,
        )
    )
    session.flush()
    return claim_of(session, job, lease_seconds)


def renew(session: Session, claim: Claim, now: datetime) -> Lease:
    """Shows that the holder lives: the lease begins anew."""
    job = _held(session, claim, now)
    if job is None:
        return Lease(valid=False)
    shares.account(session, job, claim.age, now)
    job.beat += 1
    session.flush()
    return Lease(valid=True, cancel_requested=job.cancel_requested)


def report(
    session: Session,
    claim: Claim,
    said: Sequence[Event],
    now: datetime,
    *,
    checkpoints: Mapping[str, StoredBlob] | None = None,
    received: Sequence[datetime] | None = None,
) -> bool:
    """Stores what the child said, and the phase, progress and checkpoints that follow from it.

    `done`, `failed`, `state` and `waiting` are left out: `finish` says how an attempt ended.

    Args:
        session: A write transaction.
        claim: The claim.
        said: Events of the child, in order.
        now: The time of the write.
        checkpoints: Blobs of checkpoint files by their name; one with a new name shows that the
            job gets on, so attempts lost before it are forgotten.
        received: When each event arrived; `now` for all where left out.
    """
    job = _held(session, claim, now)
    if job is None:
        return False
    left_out = DoneEvent | FailedEvent | StateEvent | WaitingEvent
    times = received or [now] * len(said)
    kept = [(e, at) for e, at in zip(said, times, strict=True) if not isinstance(e, left_out)]
    for event, _ in kept:
        if isinstance(event, PhaseEvent | ProgressEvent | AliveEvent):
            job.phase = event.phase or job.phase
            job.progress = _progress(event, job.progress)
    if checkpoints:
        _save_checkpoints(session, job, checkpoints, now)
    if kept:
        events.append(session, job.id, [e for e, _ in kept], now, [at for _, at in kept])
    session.flush()
    return True


def drop_checkpoints(
    session: Session, claim: Claim, damaged: Mapping[str, str], now: datetime
) -> bool:
    """Forgets checkpoints that can't be read any more, and says so among the job's events.

    Args:
        session: A write transaction.
        claim: The claim.
        damaged: Why, by the checkpoint's name.
        now: The time of the write.
    """
    job = _held(session, claim, now)
    if job is None:
        return False
    session.execute(
        sa.delete(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.name.in_(damaged))
    )
    said = [
        WarningEvent(
            code="file_damaged",
            message=f"The stored checkpoint {name} is damaged ({why}) and dropped; the job goes on "
            "from what is left.",
            where=name,
        )
        for name, why in sorted(damaged.items())
    ]
    events.append(session, job.id, said, now)
    return True


def finish(session: Session, claim: Claim, outcome: Outcome, now: datetime) -> bool:
    """Ends the job: artifacts, summary and final state in one transaction."""
    job = _ending(session, claim, now)
    if job is None:
        return False
    blobs.record(session, [a.blob for a in outcome.artifacts], now)
    session.add_all(
        Artifact(
            id=new_id("artifact"),
            project_id=job.project_id,
            job_id=job.id,
            name=artifact.name,
            format=artifact.format,
            sha256=artifact.blob.sha256,
            bytes=artifact.blob.bytes,
            created_at=now,
        )
        for artifact in outcome.artifacts
    )
    job.summary = outcome.summary
    transition(session, job, outcome.state, now=now, error=outcome.error)
    return True


def release(session: Session, claim: Claim, reason: str, now: datetime) -> bool:
    """Gives the job back unfinished because the worker stops; this is no lost attempt."""
    job = _ending(session, claim, now)
    if job is None:
        return False
    to = "cancelled" if job.cancel_requested else "queued"
    transition(session, job, to, now=now, reason=reason)
    return True


def put_off(
    session: Session, claim: Claim, error: dict[str, Any], now: datetime, settings: Settings
) -> str | None:
    """Gives the job back because the service can't work on it now: no attempt is lost by that.

    The job waits before it may be claimed again, longer each time in a row (`store.backoff`); a new
    checkpoint begins the row anew. After too long in total the job fails with this error.

    Args:
        session: A write transaction.
        claim: The claim.
        error: Why, as `SecateurError.as_dict()`; the attempt keeps it.
        now: The time of the write.
        settings: `put_off_first_seconds`, `put_off_longest_seconds`, `put_off_total_seconds`.

    Returns:
        The job's new state (queued, failed or cancelled), or None if the claim is stale.
    """
    job = _ending(session, claim, now)
    if job is None:
        return None
    job.put_offs += 1
    waits = Backoff.of(settings)
    if job.cancel_requested:
        transition(session, job, "cancelled", now=now, reason="put_off")
    elif waits.given_up(job.put_offs):
        transition(session, job, "failed", now=now, error=error, reason="put_off")
    else:
        wait = waits.wait(job.put_offs)
        transition(session, job, "queued", now=now, error=error, reason="put_off", wait=wait)
    return job.state


def lose(
    session: Session, claim: Claim, error: dict[str, Any], now: datetime, *, max_attempts: int
) -> str | None:
    """Ends an attempt whose process died or hung: its job is tried again, or fails.

    Returns:
        The job's new state (queued, failed or cancelled), or None if the claim is stale.
    """
    job = _ending(session, claim, now)
    return None if job is None else _attempt_lost(session, job, error, now, max_attempts)


@dataclass(frozen=True)
class Held:
    """A running job as its holder last left it: `sign` changes while the holder lives."""

    job_id: str
    token: int
    beat: int
    lease_seconds: float | None

    @property
    def sign(self) -> tuple[int, int]:
        """What changes with every claim and every renewal."""
        return self.token, self.beat


@dataclass(frozen=True)
class Reaped:
    """A job taken from a worker that fell silent."""

    job_id: str
    worker_id: str
    attempt: int
    state: str


def held(session: Session) -> list[Held]:
    """All running jobs."""
    rows = session.execute(
        sa.select(Job.id, Job.token, Job.beat, Job.lease_seconds).where(Job.state == "running")
    )
    return [Held(*row) for row in rows]


def reap(session: Session, silent: Held, now: datetime, max_attempts: int) -> Reaped | None:
    """Takes back a job whose holder fell silent: queued again, failed after too many, or cancelled.

    Returns:
        What became of it; None if the holder has shown a sign since, or is just writing.
    """
    job = session.scalars(
        sa.select(Job)
        .where(
            Job.id == silent.job_id,
            Job.token == silent.token,
            Job.beat == silent.beat,
            Job.state == "running",
        )
        .with_for_update(of=Job, skip_locked=True)
        .execution_options(populate_existing=True)
    ).first()
    if job is None:
        return None
    # Its holder had it for as long again as it was watched before it counted as silent.
    shares.account(session, job, job.held_seconds + (job.lease_seconds or 0.0), now)
    worker_id, attempt = job.worker_id or "", job.attempt
    error = SecateurError(
        "child_crashed", f"Worker {worker_id} stopped renewing its lease on the job."
    ).as_dict()
    state = _attempt_lost(session, job, error, now, max_attempts)
    return Reaped(job.id, worker_id, attempt, state)


def _held(session: Session, claim: Claim, now: datetime) -> Job | None:
    """The claim's job, locked; None if the claim is stale."""
    held = session.execute(
        sa.update(Job)
        .where(Job.id == claim.job_id, Job.token == claim.token, Job.state == "running")
        .values(updated_at=now)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).first()
    return session.get_one(Job, claim.job_id, populate_existing=True) if held else None


def _ending(session: Session, claim: Claim, now: datetime) -> Job | None:
    """As `_held`, with all that the attempt has cost until now."""
    job = _held(session, claim, now)
    if job is not None:
        shares.account(session, job, claim.age, now)
    return job


def _attempt_lost(
    session: Session, job: Job, error: dict[str, Any], now: datetime, max_attempts: int
) -> str:
    job.attempts_without_checkpoint += 1
    lost = job.attempts_without_checkpoint
    if job.cancel_requested:
        transition(session, job, "cancelled", now=now, reason="lost")
    elif lost < max_attempts:
        queue.enter(session, job)
        transition(session, job, "queued", now=now, error=error, reason="lost")
    else:
        exhausted = SecateurError(
            "attempts_exhausted",
            f"Given up: {_lost_attempts(session, job)} ended without a new checkpoint. "
            f"The last one: {error['message']}",
            hint="Retry the job; if it ends the same way, ask for less memory or fewer samples.",
            last_error=error,
        )
        transition(session, job, "failed", now=now, error=exhausted.as_dict(), reason="lost")
    return job.state


def _lost_attempts(session: Session, job: Job) -> str:
    earlier = session.scalars(
        sa.select(Attempt.number)
        .where(Attempt.job_id == job.id, Attempt.outcome == "lost")
        .order_by(Attempt.number.desc())
        .limit(job.attempts_without_checkpoint - 1)
    ).all()
    numbers = [str(n) for n in sorted([*earlier, job.attempt])]
    if len(numbers) == 1:
        return f"attempt {numbers[0]}"
    return f"attempts {', '.join(numbers[:-1])} and {numbers[-1]}"


def _progress(
    event: PhaseEvent | ProgressEvent | AliveEvent, before: dict[str, Any] | None
) -> dict[str, Any] | None:
    """What the job shows of its progress: that of its phase, and that of all of it."""
    if isinstance(event, AliveEvent):
        known = event.model_dump(mode="json", exclude={"type", "quiet_seconds"}, exclude_none=True)
        return ((before or {}) | known) or None
    if isinstance(event, PhaseEvent):
        whole = {key: value for key, value in (before or {}).items() if key in _WHOLE}
        return {"phase": event.phase, **whole} if whole else None
    return event.model_dump(mode="json", exclude={"type"}, exclude_none=True)


def _save_checkpoints(
    session: Session, job: Job, saved: Mapping[str, StoredBlob], now: datetime
) -> None:
    blobs.record(session, saved.values(), now)
    for name, blob in saved.items():
        row = session.get(Checkpoint, (job.id, name))
        if row is None:
            job.attempts_without_checkpoint = job.put_offs = 0
            row = Checkpoint(job_id=job.id, name=name, project_id=job.project_id)
            session.add(row)
        row.sha256, row.bytes, row.attempt, row.created_at = (
            blob.sha256,
            blob.bytes,
            job.attempt,
            now,
        )
