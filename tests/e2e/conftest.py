"""The service, started exactly as a user does: `secateur up` in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from secateur import Client
from secateur.resources import Dataset, Model
from tests.e2e.cases import BAD_DATA, BAD_MODELS, MISFITS
from tests.e2e.files import network, npz, samples

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background has them and all below them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

MODEL_LIMIT = 1 << 20
Sent = dict[str, Model | Dataset]


@dataclass(frozen=True)
class Service:
    """A running `secateur up`."""

    process: subprocess.Popen[str]
    banner: str
    home: Path
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return next(
            word
            for word in self.banner.split()
            if word.startswith("http://") and "docs" not in word
        )

    @property
    def api_key(self) -> str:
        import json

        return json.loads((self.home / "config" / "credentials.json").read_text())[self.url]

    def client(self) -> Client:
        return Client(self.url, self.api_key)

    def http(self, key: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key or self.api_key}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30)

    def run(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """The `secateur` command, as a user of this service types it."""
        command = [sys.executable, "-m", "secateur", *map(str, arguments)]
        return subprocess.run(
            command,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=100,
            cwd=self.home,
            check=False,
        )

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def start(home: Path, **settings: str) -> Service:
    """`secateur up` on a free port; returns once it says that it is ready."""
    root = str(Path(__file__).parents[2])
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SECATEUR_")}
    environment = clean | {
        "SECATEUR_CONFIG_DIR": str(home / "config"),
        "PYTHONPATH": root,
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "secateur", "up", "--port", "0", "--data-dir", str(home / "data")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        cwd=home,
    )
    assert process.stdout is not None
    banner = ""
    for line in process.stdout:
        banner += line
        if "Ctrl-C" in line:
            return Service(process, banner, home, environment)
    logs = "\n".join(p.read_text()[-2000:] for p in (home / "data").glob("logs/*.log"))
    raise AssertionError(f"`secateur up` ended with {process.wait()}\n{banner}\n{logs}")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = start(
        tmp_path_factory.mktemp("service"),
        SECATEUR_MODEL_BYTES_LIMIT=str(MODEL_LIMIT),
        SECATEUR_THREADS="1",
        SECATEUR_KILL_GRACE_SECONDS="1",
    )
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[Client]:
    with service.client() as made:
        yield made


@pytest.fixture(scope="session")
def sent(client: Client) -> Sent:
    """Everything that intake has to look at, sent at once: it is read while other tests run."""
    uploads: Sent = {
        "model": client.upload_model(network(), "net.onnx"),
        "dataset": client.upload_dataset(npz(samples()), "data.npz"),
    }
    for case, (arrays, _) in MISFITS.items():
        uploads[case] = client.upload_dataset(npz(arrays), f"{case}.npz")
    for case, (content, _) in BAD_MODELS.items():
        uploads[case] = client.upload_model(content, f"{case}.onnx")
    for case, (content, _) in BAD_DATA.items():
        uploads[case] = client.upload_dataset(content, f"{case}.npz")
    return uploads


@pytest.fixture(scope="session")
def model(client: Client, sent: Sent) -> Model:
    uploaded = sent["model"]
    assert isinstance(uploaded, Model)
    return client.wait_ready(uploaded)


@pytest.fixture(scope="session")
def dataset(client: Client, sent: Sent) -> Dataset:
    uploaded = sent["dataset"]
    assert isinstance(uploaded, Dataset)
    return client.wait_ready(uploaded)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.onnx, data.npz and unlabelled.npz in a folder."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "net.onnx").write_bytes(network())
    (folder / "data.npz").write_bytes(npz(samples()))
    (folder / "unlabelled.npz").write_bytes(npz({"x": samples()["x"]}))
    return folder
