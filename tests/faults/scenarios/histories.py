"""Hypothesis draws histories of requests and faults; a model says which states are legal."""

import secrets
import signal
from contextlib import suppress
from typing import Any

import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from store.tables import JobEvent
from tests.faults import child
from tests.faults.door import Promise
from tests.faults.files import MODEL, network, quick
from tests.faults.service import FINAL, LEASE, Service
from tests.faults.stage import Stage

SHORT, LONG = 100, 10_000
_LENGTH = 50
_ENDS = {child.CHAIN: "succeeded", child.FAIL: "failed", child.REJECT: "rejected"}
_FAULTS = (
    *("child", "child", "pool process", "pool process", "control", "broker emptied"),
    *("stopped", "drain", "clock", "api"),
)


def run(stage: Stage) -> None:
    length = min(_LENGTH, stage.rounds)

    class Bound(History):
        held = stage

    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=max(1, stage.rounds // length),
            stateful_step_count=length,
            deadline=None,
            database=None,
            derandomize=not stage.long,
            # A service has a past: what failed is not the same the second time.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


class History(RuleBasedStateMachine):
    """One project's requests, and what befalls the service meanwhile.

    `known` holds the state that a job was last seen in. Every answer's status follows from it, as
    far as time does not change it meanwhile.
    """

    held: Stage
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.service: Service = self.held.service
        self.door = self.service.door
        self.known: dict[str, str] = {}
        self.kinds: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.deleted: set[str] = set()
        self.seen: dict[str, list[dict[str, Any]]] = {}
        self.models: list[str] = []

    def _step(self, what: str) -> None:
        self.held.done += 1
        self.service.tend()
        if self.held.done % 500 == 0:
            self.held.say(f"{self.held.done}/{self.held.rounds} steps, last: {what}")

    def _hold(self, held: object, what: str) -> None:
        self.held.hold(held, what)
        assert held, what

    @rule(
        target=jobs,
        kind=st.sampled_from(list(_ENDS)),
        steps=st.integers(0, 3),
        ms=st.integers(0, 80),
        twice=st.booleans(),
    )
    def submit(self, kind: int, steps: int, ms: int, twice: bool) -> str:
        self._step("submit")
        seed = child.seed_of(kind, steps, ms)
        body = self.door.request(quick(seed))
        key = {"Idempotency-Key": secrets.token_hex(8)}
        answers = [
            self.door.insist("POST", "/v1/jobs", json=body, headers=key)
            for _ in range(2 if twice else 1)
        ]
        found = {answer.json()["id"] for answer in answers if answer.status_code == 202}
        self._hold(len(found) == 1 and len(answers) == 1 + twice, "one key made several jobs")
        job: str = found.pop()
        self.known[job], self.kinds[job], self.seen[job] = "queued", kind, []
        self.door.promises.append(Promise(job, seed, (*FINAL,)))
        return job

    @rule(job=jobs)
    def read(self, job: str) -> None:
        self._step("read")
        answer = self.door.insist("GET", f"/v1/jobs/{job}")
        if job in self.deleted:
            self._hold(answer.status_code == 404, "a deleted job is there")
            return
        self._saw(job, answer.json()["state"])

    def _saw(self, job: str, state: str) -> None:
        before = self.known[job]
        self._hold(before not in FINAL or state == before, f"{job} was {before} and is {state}")
        self.known[job] = state
        if state in FINAL:
            may = {_ENDS[self.kinds[job]]} | ({"cancelled"} if job in self.cancelled else set())
            self._hold(state in may, f"{job} ended {state}, which none of {may} is")

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        self._step("cancel")
        if job in self.deleted:
            return
        # A request that is sent again may find what the first one did.
        self.cancelled.add(job)
        answer = self.door.insist("POST", f"/v1/jobs/{job}/cancel")
        before = self.known[job]
        if before in FINAL and before != "cancelled":
            self._hold(answer.status_code == 409, f"cancel of a job {before}: {answer.text}")
        self._hold(answer.status_code in (202, 409), f"cancel answered {answer.text}")
        if answer.status_code == 202:
            self._saw(job, answer.json()["state"])

    @rule(target=jobs, job=jobs)
    def retry(self, job: str) -> Any:
        self._step("retry")
        if job in self.deleted:
            return multiple()
        answer = self.door.ask("POST", f"/v1/jobs/{job}/retry")
        if answer is None or answer.status_code in (409, 503):
            over = self.known[job] in FINAL and answer is not None and answer.status_code == 409
            self._hold(not over, f"retry of a job that is {self.known[job]} was refused")
            return multiple()
        self._hold(answer.status_code == 202, f"retry answered {answer.text}")
        again: str = answer.json()["id"]
        self.known[again], self.kinds[again], self.seen[again] = "queued", self.kinds[job], []
        return again

    @rule(job=jobs)
    def delete(self, job: str) -> None:
        self._step("delete")
        if job in self.deleted:
            return
        answer = self.door.insist("DELETE", f"/v1/jobs/{job}")
        if self.known[job] in FINAL:
            # 404: a first request whose answer was lost had done it.
            self._hold(answer.status_code in (204, 404), f"delete answered {answer.text}")
        self._hold(answer.status_code in (204, 404, 409), f"delete answered {answer.text}")
        if answer.status_code != 409:
            self.deleted.add(job)
            self.door.promises = [p for p in self.door.promises if p.job != job]

    @rule(job=jobs)
    def events(self, job: str) -> None:
        """What was read once stays, and more may follow."""
        self._step("events")
        if job in self.deleted:
            return
        rows = self.service.rows(JobEvent, job_id=job)
        bodies = [row.body for row in rows]
        numbers = [row.seq for row in rows]
        self._hold(numbers == list(range(1, len(rows) + 1)), f"{job}: event numbers {numbers}")
        before = self.seen[job]
        self._hold(bodies[: len(before)] == before, f"{job}: events changed")
        self.seen[job] = bodies

    @rule(new=st.integers(0, 9))
    def upload(self, new: int) -> None:
        """Bytes that are there, as a rule: each new file is read by a child that loads torch."""
        self._step("upload")
        if new:
            found = self.door.upload("models", MODEL, self.door.model_bytes)
            self._hold(found == self.door.model, "the same bytes made another model")
            return
        name = f"h{secrets.token_hex(4)}.onnx"
        content = network(int.from_bytes(secrets.token_bytes(4), "big"))
        self.models.append(self.door.upload("models", name, content))

    @rule(job=jobs)
    def model_of_a_job_stays(self, job: str) -> None:
        self._step("delete model")
        if job in self.deleted:
            return
        answer = self.door.insist("DELETE", f"/v1/models/{self.door.model}")
        self._hold(answer.status_code == 409, f"a model in use: {answer.status_code}")

    @rule()
    def delete_model(self) -> None:
        self._step("delete upload")
        if self.models:
            model = self.models.pop()
            answer = self.door.insist("DELETE", f"/v1/models/{model}")
            self._hold(answer.status_code in (204, 404), f"delete answered {answer.text}")
            del self.door.uploads[f"/v1/models/{model}"]

    @rule(fault=st.sampled_from(_FAULTS), which=st.integers(0, 10))
    def fault(self, fault: str, which: int) -> None:
        self._step(fault)
        service = self.service
        pools = service.pools()
        pool = pools[which % len(pools)] if pools else None
        if fault == "broker emptied":
            with suppress(redis.RedisError), redis.Redis.from_url(service.settings.redis_url) as r:
                r.flushall()
        elif fault == "control":
            service.kill("control")
        elif fault == "api" and which < 3:
            service.kill("api")
        elif fault == "drain" and which < 5:
            service.parts["jobs"].signal(signal.SIGTERM)
            service.gone("jobs")
        elif fault == "clock" and service.shim is not None:
            service.shim.clock += (-120.0, 120.0, -3600.0, 3600.0)[which % 4]
        elif fault == "pool process" and pool is not None and which < 5:
            service.signal(pool, signal.SIGKILL)
        elif fault == "stopped" and pool is not None and which < 3:
            with service.stopped([pool]):
                service.rest(LEASE + 1)
        elif fault == "child" and pool is not None:
            self._kill_child(pool)

    def _kill_child(self, pool: Any) -> None:
        """Only where the job can bear it: a third attempt without a checkpoint is a legal end."""
        import psutil

        with suppress(psutil.Error):
            running = [j for j in self.known if self.known[j] not in FINAL]
            lost = [
                job.attempts_without_checkpoint
                for name in running
                if name not in self.deleted
                for job in self.service.rows(type(self.service.job(name)), id=name)
            ]
            if max(lost, default=0) == 0:
                self.service.signal(pool.children(), signal.SIGKILL)

    @invariant()
    def the_process_lives(self) -> None:
        self.service.tend()

    def teardown(self) -> None:
        """All jobs end, as they may."""
        for job in sorted(set(self.known) - self.deleted):
            ended = self.service.ends(job, 90)
            self._saw(job, ended.state)
