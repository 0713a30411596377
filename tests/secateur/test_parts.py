import sys
import time
from pathlib import Path

import psutil
import pytest

from secateur import SecateurError
from secateur._broker import Broker
from secateur._parts import RESTARTS, Part, stop


def part(tmp_path: Path, program: str) -> Part:
    return Part("part", [sys.executable, "-c", program], {"PATH": ""}, tmp_path / "part.log", 1.0)


def _ended(one: Part) -> Part:
    assert one.process is not None
    one.process.wait(10)
    return one


def wait_for(text: str, log: Path) -> None:
    deadline = time.monotonic() + 10
    while text not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_part_that_keeps_dying_ends_the_service_and_shows_its_log(tmp_path: Path) -> None:
    dying = part(tmp_path, "print('cannot go on'); raise SystemExit(3)")
    dying.start()
    for _ in range(RESTARTS):
        _ended(dying).revive()
    with pytest.raises(SecateurError) as caught:
        _ended(dying).revive()
    assert caught.value.code == "unavailable"
    assert "cannot go on" in caught.value.details["log"]
    assert len(dying.deaths) == RESTARTS + 1


def test_a_part_that_ignores_the_signal_is_killed_with_its_children(tmp_path: Path) -> None:
    stubborn = part(
        tmp_path,
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        "print('up', flush=True); time.sleep(100)",
    )
    stubborn.start()
    wait_for("up", tmp_path / "part.log")
    assert stubborn.process is not None
    family = [psutil.Process(stubborn.process.pid)]
    family += family[0].children(recursive=True)
    assert len(family) == 2
    stop([stubborn])
    _, alive = psutil.wait_procs(family, timeout=5)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def test_the_embedded_broker_answers_to_its_password_alone(tmp_path: Path) -> None:
    import redis

    broker = Broker(tmp_path)
    server = broker.part(tmp_path / "valkey.log")
    server.start()
    try:
        broker.wait(server)
        assert redis.Redis.from_url(broker.url).ping()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=broker.port).ping()
        assert server.process is not None
        listening = psutil.Process(server.process.pid).net_connections()
        assert {c.laddr.ip for c in listening if c.status == "LISTEN"} == {"127.0.0.1"}
    finally:
        stop([server])
