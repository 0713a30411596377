"""Any order of steps by users, workers and the reaper, on a clock that only the test moves."""

import shutil
import tempfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from pruning.errors import SecateurError
from pruning.events import ProgressEvent
from store import leases
from store.claims import NewArtifact, Outcome
from store.db import Database
from store.queries import jobs
from store.settings import Settings
from store.states import FINAL_STATES, TRANSITIONS
from store.tables import Artifact, Attempt, Checkpoint, Job, JobEvent

CRASH = {"code": "child_crashed", "message": "Killed."}


def machine(world_class: type, template: Path) -> type[RuleBasedStateMachine]:
    class JobLife(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.folder = Path(tempfile.mkdtemp())
            shutil.copy(template, self.folder / "secateur.db")
            config = Settings(data_dir=self.folder)
            self.world = world_class(config, Database(config))
            world = self.world
            world.project, world.model, world.data = world.project_with_inputs()
            self.clock = 0.0
            self.claims: list = []
            self.ended: dict[str, dict] = {}
            self.tokens: dict[str, int] = defaultdict(int)
            self.checkpoints = 0

        def teardown(self) -> None:
            self.world.database.dispose()
            shutil.rmtree(self.folder)

        def job_ids(self) -> list[str]:
            return [j.id for j in self.world.rows(Job, kind="prune")]

        @rule()
        def submit(self) -> None:
            self.world.submit(now=self.world.at(self.clock))

        @rule(seconds=st.sampled_from([1, 14, 31]))
        def wait(self, seconds: int) -> None:
            self.clock += seconds

        @rule()
        def claim(self) -> None:
            claim = self.world.claim(at=self.clock)
            if claim is not None:
                assert claim.token > self.tokens[claim.job_id]
                self.tokens[claim.job_id] = claim.token
                self.claims.append(claim)

        @rule(pick=st.randoms(use_true_random=False))
        def reap(self, pick) -> None:
            """One of those that run has been silent for too long."""
            now = self.world.at(self.clock)
            with self.world.database.write() as session:
                if not (held := leases.held(session)):
                    return
                silent = pick.choice(held)
                assert leases.reap(session, silent, now, max_attempts=3) is not None
            assert self.world.job(silent.job_id).state != "running"

        @rule(pick=st.randoms(use_true_random=False))
        def cancel(self, pick) -> None:
            if not (ids := self.job_ids()):
                return
            job_id = pick.choice(ids)
            was = self.world.job(job_id).state
            try:
                with self.world.database.write() as session:
                    jobs.request_cancel(session, self.world.project, job_id)
            except SecateurError:
                assert was in ("succeeded", "failed", "rejected")

        @rule(
            pick=st.randoms(use_true_random=False),
            what=st.sampled_from(
                [
                    "renew",
                    "report",
                    "checkpoint",
                    "finish",
                    "fail",
                    "cancelled",
                    "drain",
                    "crash",
                    "full",
                ]
            ),
        )
        def a_worker_acts(self, pick, what: str) -> None:
            if not self.claims:
                return
            claim, now = pick.choice(self.claims), self.world.at(self.clock)
            job = self.world.job(claim.job_id)
            holds = job.state == "running" and job.token == claim.token
            before = self.snapshot(claim.job_id)
            with self.world.database.write() as session:
                done = self.act(session, claim, what, now)
            assert done == holds
            if not holds:
                assert self.snapshot(claim.job_id) == before

        def act(self, session, claim, what: str, now) -> bool:
            blob = self.world.blob
            if what == "renew":
                return leases.renew(session, claim, now).valid
            if what == "report":
                said = [ProgressEvent(phase="pruning", done=1, total=2)]
                return leases.report(session, claim, said, now)
            if what == "checkpoint":
                self.checkpoints += 1
                saved = {f"round-{self.checkpoints}": blob("r")}
                return leases.report(session, claim, [], now, checkpoints=saved)
            if what == "drain":
                return leases.release(session, claim, "drained", now)
            if what == "full":
                error = CRASH | {"code": "storage_full"}
                settings = self.world.settings
                return leases.put_off(session, claim, error, now, settings) is not None
            if what == "crash":
                return leases.lose(session, claim, CRASH, now, max_attempts=3) is not None
            outcome = {
                "finish": Outcome("succeeded", artifacts=(NewArtifact("a", "onnx", blob("a")),)),
                "fail": Outcome("failed", error=CRASH),
                "cancelled": Outcome("cancelled"),
            }[what]
            return leases.finish(session, claim, outcome, now)

        def snapshot(self, job_id: str) -> dict:
            columns = Job.__table__.columns.keys()
            job = self.world.job(job_id)
            counts = [
                len(self.world.rows(t, job_id=job_id))
                for t in (JobEvent, Artifact, Attempt, Checkpoint)
            ]
            return {c: getattr(job, c) for c in columns} | {"counts": counts}

        @invariant()
        def events_tell_the_whole_story(self) -> None:
            for job in self.world.rows(Job, kind="prune"):
                events = sorted(self.world.rows(JobEvent, job_id=job.id), key=lambda e: e.seq)
                assert [e.seq for e in events] == list(range(1, job.last_seq + 1))
                said = [e.body["state"] for e in events if e.body["type"] == "state"]
                assert said[0] == "queued"
                assert said[-1] == job.state
                assert all(b in TRANSITIONS[a] for a, b in pairwise(said))

        @invariant()
        def rows_agree_with_the_state(self) -> None:
            for job in self.world.rows(Job, kind="prune"):
                attempts = self.world.rows(Attempt, job_id=job.id)
                running = [a for a in attempts if a.finished_at is None]
                assert sorted(a.number for a in attempts) == list(range(1, job.attempt + 1))
                assert len(running) == (job.state == "running")
                assert (job.lease_seconds is not None) == (job.state == "running")
                assert job.state == "queued" or job.not_before is None
                assert (job.finished_at is not None) == (job.state in FINAL_STATES)
                assert bool(self.world.rows(Artifact, job_id=job.id)) == (job.state == "succeeded")
                if job.state in FINAL_STATES:
                    assert self.ended.setdefault(job.id, self.snapshot(job.id)) == self.snapshot(
                        job.id
                    )
                    assert self.world.rows(Checkpoint, job_id=job.id) == []
                else:
                    assert job.attempts_without_checkpoint < 3

    return JobLife


@pytest.mark.parametrize("empty", ["sqlite"], indirect=True)
def test_no_order_of_steps_breaks_a_job(empty, migrated_sqlite) -> None:
    run_state_machine_as_test(
        machine(type(empty), migrated_sqlite),
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
