"""A project's way into a service under test: what it asks and what it is promised."""

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from tests.faults import child
from tests.faults.files import DATA, MODEL, REAL, network, quick, samples

if TYPE_CHECKING:
    from tests.faults.service import Service

SUCCEEDED = ("succeeded",)
_BUSY = (429, 503, 507)


def code_of(answer: httpx.Response) -> str | None:
    """The code of a problem, None where the answer is none."""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    code: str = answer.json()["code"]
    return code


@dataclass
class Promise:
    """A job that was answered with 202, and how it may end."""

    job: str
    seed: int | None
    """Of the quick child; None for a real job."""
    states: Sequence[str]


class Door:
    """One project at the API.

    Args:
        service: It is tended while an answer is awaited.
        url: Of the API.
        project: The project's id.
        key: A key of it.
    """

    def __init__(self, service: "Service", url: str, project: str, key: str) -> None:
        self._service, self.project = service, project
        self.http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=httpx.Timeout(60, connect=5),
        )
        self.promises: list[Promise] = []
        self.uploads: dict[str, bytes] = {}
        """Path of an upload that was answered with 201 or 200, and its bytes."""
        self.statuses: Counter[int] = Counter()
        self.wrong: Counter[str] = Counter()
        self.model_bytes, self.data_bytes = network(), samples()
        self.model = self.data = ""

    def close(self) -> None:
        self.http.close()

    def ready(self) -> bool:
        answer = self.ask("GET", "/readyz")
        return answer is not None and answer.status_code == 200

    def ask(self, method: str, path: str, **rest: Any) -> httpx.Response | None:
        """One request; None where the connection failed. Its status is counted and judged."""
        try:
            answer = self.http.request(method, path, **rest)
        except httpx.TransportError:
            return None
        self.statuses[answer.status_code] += 1
        route = "/".join(path.split("?")[0].split("/")[:3])
        if answer.status_code == 500 and code_of(answer) != "file_damaged":
            self.wrong[f"{method} {route} answered 500"] += 1
        if answer.status_code in _BUSY and "retry-after" not in answer.headers and answer.text:
            self.wrong[f"{method} {route} answered {answer.status_code} without Retry-After"] += 1
        return answer

    def insist(self, method: str, path: str, seconds: float = 60.0, **rest: Any) -> httpx.Response:
        """Ask again, as clients do, until the service has time."""

        def asked() -> httpx.Response | None:
            answer = self.ask(method, path, **rest)
            if answer is None or answer.status_code >= 500 or answer.status_code == 429:
                time.sleep(0.05)
                return None
            return answer

        return self._service.until(asked, seconds, f"an answer to {method} {path}")

    def upload(self, kind: str, name: str, content: bytes, seconds: float = 60.0) -> str:
        """Upload until it is taken; the id."""
        answer = self.insist("POST", f"/v1/{kind}?name={name}", seconds, content=content)
        assert answer.status_code in (200, 201), answer.text
        found: str = answer.json()["id"]
        self.uploads[f"/v1/{kind}/{found}"] = content
        return found

    def checked(self, path: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until intake has looked at an upload."""

        def looked() -> dict[str, Any] | None:
            answer = self.ask("GET", path)
            if answer is None or answer.status_code != 200:
                return None
            found: dict[str, Any] = answer.json()
            return None if found["state"] == "checking" else found

        return self._service.until(looked, seconds, f"the check of {path}")

    def upload_inputs(self) -> None:
        """The model and the data that jobs work on."""
        self.model = self.upload("models", MODEL, self.model_bytes)
        self.data = self.upload("datasets", DATA, self.data_bytes)
        for path in (f"/v1/models/{self.model}", f"/v1/datasets/{self.data}"):
            found = self.checked(path)
            assert found["state"] == "ready", found

    def request(self, spec: dict[str, Any], **rest: Any) -> dict[str, Any]:
        """The body of a job's request."""
        return {"model": self.model, "data": {"calibration": self.data}, "spec": spec} | rest

    def submit(
        self,
        kind: int = child.CHAIN,
        *,
        steps: int = 5,
        ms: int = 200,
        salt: int = 0,
        states: Sequence[str] = SUCCEEDED,
        seconds: float = 60.0,
        **rest: Any,
    ) -> str:
        """A job for the quick child, submitted until it is taken."""
        seed = child.seed_of(kind, steps, ms, salt)
        return self.promised(self.request(quick(seed), **rest), seed, states, seconds)

    def submit_real(self, seed: int = 0, states: Sequence[str] = SUCCEEDED) -> str:
        """A job for the real child."""
        return self.promised(self.request(REAL | {"seed": seed}), None, states)

    def promised(
        self,
        body: dict[str, Any],
        seed: int | None,
        states: Sequence[str],
        seconds: float = 60.0,
    ) -> str:
        """Submit a body until it is taken; a key makes that one job."""
        key = {"Idempotency-Key": secrets.token_hex(8)}
        answer = self.insist("POST", "/v1/jobs", seconds, json=body, headers=key)
        assert answer.status_code == 202, answer.text
        found: str = answer.json()["id"]
        self.promises.append(Promise(found, seed, states))
        return found

    def fetched(self, job: str, name: str) -> bytes:
        """An artifact's bytes, asked for until they come whole."""
        answer = self.insist("GET", f"/v1/jobs/{job}/artifacts/{name}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def expected(self, seed: int) -> bytes:
        """What a job of the quick child writes."""
        return child.artifact(seed, self.model_bytes, self.data_bytes)
