"""One attempt: from a claim to its guarded end.

An intake check is one child. A pruning is two, one after the other: the first prunes and writes
files; the second has nothing of the first but these files, out of the blob store, and its draft of
the report; it verifies them and writes the reports. Where the second ends early the attempt has
ended: the next one resumes the first from its checkpoints, which leaves it little to do.

Load in a short transaction (the claim), work outside any, apply in a short one guarded by the
fencing token. Whatever happens, the child and its group are gone before the outcome is written.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from pruning.course import Course
from pruning.errors import SecateurError
from pruning.events import CheckpointEvent, DoneEvent, Event, FailedEvent, ProgressEvent
from pruning.request import CHECKPOINTS, OUT, RunResult
from store import failures, leases, queue
from store.blobs import DamagedBlobError, StoredBlob
from store.claims import Claim, NewArtifact, Outcome
from store.clock import utcnow
from worker import deaths
from worker.bounds import SUMMARY_BYTES, bounded_error
from worker.endings import Cancelled, Drained, Ending, Failed, Lost, PutOff, Stale
from worker.files import UnsafeFileError, keep, plain
from worker.lease import Hold
from worker.materialise import device_of, hand_on_draft, materialise, to_verify
from worker.process import Child, MisbehavedError
from worker.workplace import Workplace, discard

log = logging.getLogger(__name__)
T = TypeVar("T")

_TURN_SECONDS = 0.1
_POLL_SECONDS = 0.5
_FLUSH_SECONDS = 0.5
_ALIVE_SECONDS = 4.0  # after which something is said where the child says nothing
_EXIT_SECONDS = 5.0  # how long a child that is done may take to exit
_LOG_SHOWN = 4000
_FORMAT = re.compile(r"[a-z0-9_.]{1,32}")


class Attempt:
    """One attempt of one job.

    Args:
        place: The process's workplace.
        claim: The job it holds.
    """

    def __init__(self, place: Workplace, claim: Claim) -> None:
        self._place = place
        self._settings = place.settings
        self._claim = claim
        self._hold = Hold(
            place.db,
            claim,
            place.settings.heartbeat_seconds,
            _POLL_SECONDS,
            draining=lambda: place.draining,
        )
        self._started = self._progress_at = time.monotonic()
        self._flushed = 0.0
        self._said_at = self._started
        self._course = Course()
        self._last_progress: tuple[str, float, str] | None = None
        self._pending: list[tuple[Event, datetime]] = []
        self._children: list[Child] = []
        self._threads = place.threads()  # one number for both children

    def run(self) -> str:
        """Run it to its end.

        Returns:
            What became of it: the job's state, `drained`, or `stale` when nothing was written.
        """
        try:
            return self._log(self._finish(self._work()))
        except Ending as ending:
            return self._log(self._stop(ending))
        except BaseException as error:
            # The worker itself is broken or told to exit: give the job to another one at once.
            stopping = not isinstance(error, Exception)
            became = self._log(self._stop(Drained() if stopping else _why(error)))
            if stopping:
                raise
            log.exception("job %s: the supervisor failed", self._claim.job_id)
            return became

    def _work(self) -> Outcome:
        claim, place = self._claim, self._place
        first = self._begin()
        settings, threads, tick = self._settings, self._threads, self._tick
        damaged = self._fill(
            lambda: materialise(claim, first.slot, place.blobs, settings, threads, tick)
        )
        if damaged:
            self._drop_checkpoints(damaged)
        self._hand_over(first)
        self._prepare_next()
        result = self._follow(first)
        if claim.kind != "prune":
            self._let_go(first)
            return Outcome("succeeded", summary={"facts": result.facts})
        written = self._artifacts(first, result)
        if not written:
            raise Lost(self._crash(first, "The job's process wrote no files."))
        second = self._begin(second=True)
        self._fill(
            lambda: to_verify(claim, written, second.slot, place.blobs, settings, threads, tick)
        )
        try:
            hand_on_draft(first.slot, second.slot, settings, tick)
        except UnsafeFileError as error:
            raise Lost(self._crash(first, f"The job's process left {error}.")) from error
        self._let_go(first)
        self._hand_over(second)
        verified = self._follow(second)
        if len(json.dumps(verified.summary)) > SUMMARY_BYTES:
            raise Lost(self._crash(second, "The job's process sent too long a summary."))
        reports = self._artifacts(second, verified)
        if {a.name for a in written} & {a.name for a in reports}:
            raise Lost(self._crash(second, "The job's process wrote two files of one name."))
        self._let_go(second)
        if verified.rejected is None:
            return Outcome("succeeded", summary=verified.summary, artifacts=written + reports)
        missed = bounded_error(verified.rejected.model_dump(exclude_none=True))
        return Outcome(
            "rejected", error=missed, summary=verified.summary, artifacts=written + reports
        )

    def _begin(self, *, second: bool = False) -> Child:
        """The next child, which imports while its inputs are copied, if it has not done so."""
        child = self._place.child(self._threads, second=second)
        self._children.append(child)
        return child

    def _fill(self, materialised: Callable[[], T]) -> T:
        try:
            return materialised()
        except LookupError as error:
            raise Failed(SecateurError("not_found", f"An input is missing: {error}.")) from error
        except DamagedBlobError as error:
            # What the first child wrote: another attempt makes the same bytes again.
            raise Lost(error) from error
        except SecateurError as error:
            raise Failed(error) from error

    def _drop_checkpoints(self, damaged: dict[str, str]) -> None:
        claim = self._claim
        if not self._hold.write(lambda s: leases.drop_checkpoints(s, claim, damaged, utcnow())):
            raise Stale("another worker has the job")

    def _prepare_next(self) -> None:
        """Where another job waits, the child that it will need begins to import."""
        try:
            with self._place.db.read() as session:
                waits = queue.anything_waits(session, self._claim.klass, utcnow())
        except DBAPIError:
            return  # it only takes the next job longer
        if waits:
            self._place.prepare()

    def _hand_over(self, child: Child) -> None:
        """What lies in its slot is the child's from now on."""
        memory = self._place.memory_bytes
        child.hand_over(memory, reserves=device_of(self._claim.klass) != "cpu")
        self._progress_at = time.monotonic()
        self._last_progress = None

    def _follow(self, child: Child) -> RunResult:
        """Follow the child to its result."""
        done = self._listen(child)
        if not child.end(0.0):
            raise Stale("a process of the job can't be killed")
        try:
            return RunResult.model_validate(done.result)
        except ValueError as error:
            raise Lost(self._crash(child, "The job's process sent an invalid result.")) from error

    def _let_go(self, child: Child) -> None:
        discard(child)
        self._children.remove(child)

    def _listen(self, child: Child) -> DoneEvent:
        """Follow the child until it has said `done` and exited."""
        done: DoneEvent | None = None
        done_at = 0.0
        while True:
            dead = child.returncode is not None
            try:
                events = child.read(0.0 if dead else _TURN_SECONDS)
            except MisbehavedError as error:
                raise Lost(self._crash(child, f"The job's process sent {error}.")) from error
            for event in events:
                if done is not None:
                    raise Lost(self._crash(child, "The job's process spoke after it was done."))
                if isinstance(event, FailedEvent):
                    self._flush()
                    told = self._told(event, child)
                    raise PutOff(told) if told.code == "storage_full" else Failed(told)
                if isinstance(event, DoneEvent):
                    done, done_at = event, time.monotonic()
                else:
                    self._take(child, event)
            self._tick()
            if child.excess is not None:
                self._flush()
                raise deaths.over(child.excess, child.kept)
            if done is not None and (dead or time.monotonic() - done_at > _EXIT_SECONDS):
                self._flush()
                return done
            if dead and not events:
                self._flush()
                raise self._died(child)
            if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
                self._flush()
            if done is None:
                self._check_stall()

    def _take(self, child: Child, event: Event) -> None:
        event = self._course.told(event)
        got_on = True
        if isinstance(event, ProgressEvent):
            told = (event.phase, event.done, event.message)
            got_on, self._last_progress = told != self._last_progress, told
            if self._pending and isinstance(self._pending[-1][0], ProgressEvent):
                self._pending.pop()
            self._pending.append((event, utcnow()))
        elif isinstance(event, CheckpointEvent):
            # A checkpoint lies in its folder under its name, or nowhere.
            at = utcnow()
            saved = self._keep(child, CHECKPOINTS, event.name)
            self._pending.append((event.model_copy(update={"bytes": saved.bytes}), at))
            self._flush({event.name: saved})
        else:
            self._pending.append((event, utcnow()))
        self._said_at = time.monotonic()
        if got_on:
            self._progress_at = self._said_at

    def _flush(self, checkpoints: dict[str, StoredBlob] | None = None) -> None:
        self._flushed = time.monotonic()
        pending, self._pending = self._pending, []
        if not pending:
            return
        events, received = [event for event, _ in pending], [at for _, at in pending]
        if not self._hold.write(
            lambda session: leases.report(
                session,
                self._claim,
                events,
                utcnow(),
                checkpoints=checkpoints,
                received=received,
            ),
            durable=bool(checkpoints),
        ):
            raise Stale("another worker has the job")

    def _keep(self, child: Child, folder: str, name: str) -> StoredBlob:
        place, path = self._place, child.slot.folder / folder
        try:
            return keep(place.blobs, path, name, place.output_bytes, self._pulse)
        except UnsafeFileError as error:
            raise Lost(self._crash(child, f"The job's process named {error}.")) from error

    def _artifacts(self, child: Child, result: RunResult) -> tuple[NewArtifact, ...]:
        """The files that a child made, stored; their digests are taken on the way."""
        names = [artifact.name for artifact in result.artifacts]
        if len(set(names)) != len(names) or not all(plain(name) for name in names):
            raise Lost(self._crash(child, "The job's process sent unusable artifact names."))
        if not all(_FORMAT.fullmatch(artifact.format) for artifact in result.artifacts):
            raise Lost(self._crash(child, "The job's process sent a file of no known kind."))
        return tuple(
            NewArtifact(a.name, a.format, self._keep(child, OUT, a.name)) for a in result.artifacts
        )

    def _stop(self, ending: Ending) -> str:
        """End the children, then write why."""
        gone = [discard(child, self._settings.kill_grace_seconds) for child in self._children]
        if not all(gone):
            log.error("job %s: a process can't be killed", self._claim.job_id)
            return "stale"
        try:
            return self._write_ending(ending)
        except Stale:
            return "stale"

    def _write_ending(self, ending: Ending) -> str:
        claim, hold = self._claim, self._hold
        if isinstance(ending, Stale):
            log.warning("job %s: %s", claim.job_id, ending)
            return "stale"
        if isinstance(ending, Cancelled):
            return self._finish(Outcome("cancelled"))
        if isinstance(ending, Drained):
            held = hold.write(lambda session: leases.release(session, claim, "drained", utcnow()))
            return "drained" if held else "stale"
        assert isinstance(ending, Failed)
        if isinstance(ending, PutOff):
            error, settings = ending.error, self._settings
            put_off = hold.write(lambda s: leases.put_off(s, claim, error, utcnow(), settings))
            return put_off or "stale"
        if not isinstance(ending, Lost):
            return self._finish(Outcome("failed", error=ending.error))
        state = hold.write(
            lambda session: leases.lose(
                session, claim, ending.error, utcnow(), max_attempts=self._settings.max_attempts
            )
        )
        return state or "stale"

    def _finish(self, outcome: Outcome) -> str:
        held = self._hold.write(lambda s: leases.finish(s, self._claim, outcome, utcnow()))
        return outcome.state if held else "stale"

    def _pulse(self) -> None:
        """Keeps the lease, and says now and then that the job goes on.

        That is no progress: it does not put off the moment at which the job counts as stalled.
        """
        self._hold.beat()
        now = time.monotonic()
        if self._claim.kind == "prune" and now - self._said_at >= _ALIVE_SECONDS:
            self._said_at = now
            self._pending.append((self._course.alive(now - self._progress_at), utcnow()))
            self._flush()

    def _tick(self) -> None:
        """What has to happen again and again while the attempt runs."""
        self._pulse()
        if self._place.draining:
            raise Drained
        wall = self._settings.wall_seconds
        if time.monotonic() - self._started > wall:
            hint = "Use fewer samples, fewer rounds or a cheaper criterion."
            raise Failed(
                SecateurError("wall_limit", f"The job ran for more than {wall:g} s.", hint=hint)
            )

    def _check_stall(self) -> None:
        limit = self._settings.stall_seconds
        if time.monotonic() - self._progress_at > limit:
            raise Lost(SecateurError("stalled", f"The job made no progress for {limit:g} s."))

    def _told(self, event: FailedEvent, child: Child) -> SecateurError:
        """The child's own error, as far as it is one."""
        try:
            error = SecateurError.from_dict(event.error)
        except (TypeError, AttributeError, ValueError):
            return SecateurError("internal_error", "The job failed without saying why.")
        if error.code == "out_of_memory":
            return child.kept.error(error.message)
        return error

    def _died(self, child: Child) -> Failed:
        """Why a child is dead that has not said so."""
        code = child.returncode
        crash = self._crash(child, deaths.describe(code))
        return deaths.starved(code, child.log, child.kept) or Lost(crash)

    def _crash(self, child: Child, message: str) -> SecateurError:
        child.end(0.0)  # so that the log is complete
        log.warning("job %s: %s\n%s", self._claim.job_id, message, child.log[-_LOG_SHOWN:])
        return SecateurError(
            "child_crashed",
            message,
            hint="What the process printed is in the worker's log, beside the job's id.",
            exit_code=child.returncode,
        )

    def _log(self, became: str) -> str:
        log.info(
            "job %s attempt %d (%s) on %s: %s after %.2f s",
            self._claim.job_id,
            self._claim.attempt,
            self._claim.kind,
            os.uname().nodename,
            became,
            time.monotonic() - self._started,
        )
        return became


def _why(error: BaseException) -> Failed:
    """How an attempt ends whose supervisor failed."""
    known = failures.told(error)
    if known is not None and known.code in failures.TEMPORARY:
        return PutOff(known)
    return Lost(SecateurError("internal_error", f"The worker failed: {type(error).__name__}."))
