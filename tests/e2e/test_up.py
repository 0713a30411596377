import os
import signal
import socket
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import Service, start


def _gone(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


def test_a_second_instance_on_the_same_folder_is_refused(service: Service) -> None:
    done = service.run("up", "--port", "0", "--data-dir", service.home / "data")
    assert done.returncode == 1
    assert "error in_use" in done.stderr
    assert str(service.process.pid) in done.stderr


def test_a_port_in_use_is_a_clear_error(service: Service, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = service.run("up", "--port", port, "--data-dir", tmp_path)
    assert done.returncode == 1
    assert "error in_use" in done.stderr
    assert port in done.stderr


def test_the_credentials_file_is_the_owners_alone(service: Service) -> None:
    path = service.home / "config" / "credentials.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (service.home / "data" / "valkey" / "valkey.conf").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def own(tmp_path: Path) -> Service:
    return start(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_dead_part_is_restarted_and_no_end_leaves_anything_behind(
    own: Service, number: signal.Signals
) -> None:
    try:
        if number == signal.SIGTERM:
            api = next(p for p in own.descendants() if p.cmdline()[1:3] == ["-m", "api"])
            api.kill()
            deadline = time.monotonic() + 20
            while True:
                try:
                    answer = httpx.get(f"{own.url}/readyz", trust_env=False)
                    break
                except httpx.TransportError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            assert answer.status_code == 200
        deadline = time.monotonic() + 20
        while len(processes := own.descendants()) < 7:  # the pools fork theirs a moment later
            assert time.monotonic() < deadline, processes
            time.sleep(0.1)
        os.kill(own.process.pid, number)
        own.process.wait(15)
        assert _gone(processes, 15) == []
        if number == signal.SIGTERM:
            assert own.process.returncode == 0
    finally:
        if own.process.poll() is None:
            own.stop()
