"""How many connections there may be, and that they are not all taken by those who show no key."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.security.raw_http import Client, Server, serve


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(tmp_path, failed_keys_limit=3, **getattr(request, "param", {})) as running:
        yield running


def limits(**values: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", [values], indirect=True, ids=[""])


def idle(server: Server, stack: ExitStack, count: int) -> list[Client]:
    """Connections that send nothing."""
    return [stack.enter_context(server.client()) for _ in range(count)]


def known(server: Server, stack: ExitStack, count: int) -> list[Client]:
    """Connections that have shown a key."""
    clients = []
    for _ in range(count):
        clients += idle(server, stack, 1)
        clients[-1].send(server.head())
        assert clients[-1].answer(until=b"}").statuses == [200]
    return clients


@limits(connections_limit=8)
def test_over_the_limit_is_503_with_a_time_to_come_back(server: Server) -> None:
    with ExitStack() as stack:
        clients = known(server, stack, 8)
        answer = server.exchange(server.head())
        assert answer.statuses == [503]
        assert b"overloaded" in answer.data
        assert answer.header("retry-after") == "2"
        assert answer.closed
        clients[0].close()
        time.sleep(0.1)
        with server.client() as client:
            client.send(server.head())
            assert client.answer(until=b"}").statuses == [200]


@limits(address_connections_limit=4)
def test_one_address_has_a_part_of_them(server: Server) -> None:
    with ExitStack() as stack:
        known(server, stack, 4)
        assert server.exchange(server.head()).statuses == [503]


@limits(address_connections_limit=4, trusted_proxies="127.0.0.0/8")
def test_a_trusted_proxy_is_not_one_client(server: Server) -> None:
    with ExitStack() as stack:
        idle(server, stack, 8)
        known(server, stack, 4)


@limits(anonymous_connections_limit=5)
def test_who_shows_no_key_gives_way_to_who_sends_a_request(server: Server) -> None:
    with ExitStack() as stack:
        mine = known(server, stack, 10)
        old = idle(server, stack, 5)
        # They have had no time to send anything yet.
        assert server.exchange(server.head()).statuses == [503]
        time.sleep(1.2)
        for _ in range(3):
            known(server, stack, 1)
        assert [client.answer(silent=0.2).closed for client in old] == [True, *[False] * 4]
        for client in mine:
            client.send(server.head())
            assert client.answer(until=b"}").statuses == [200]


@limits(trusted_proxies="127.0.0.1")
def test_unknown_keys_are_counted_by_what_a_trusted_proxy_says(server: Server) -> None:
    def show(address: str, secret: str = "sct_" + "A" * 43) -> list[int]:
        fields = (f"Authorization: Bearer {secret}", f"X-Forwarded-For: {address}")
        request = server.head("GET /v1/limits", *fields, "Connection: close", key=False)
        return server.exchange(request).statuses

    assert [show("9.9.9.9, 1.2.3.4") for _ in range(4)] == [[401]] * 3 + [[429]]
    # What stands to the left was written by the client.
    assert show("8.8.8.8, 1.2.3.4") == [429]
    assert show("1.2.3.4, 127.0.0.1") == [429]
    assert show("1.2.3.5") == [401]
    assert show("1.2.3.4", server.secret) == [200]


def test_unknown_keys_are_slowed_down_and_good_ones_are_not(server: Server) -> None:
    def show(secret: str) -> list[int]:
        fields = (f"Authorization: Bearer {secret}", "X-Forwarded-For: 1.2.3.4")
        answer = server.exchange(
            server.head("GET /v1/limits", *fields, "Connection: close", key=False)
        )
        if answer.statuses == [429]:
            assert int(answer.header("retry-after") or 0) >= 1
        return answer.statuses

    assert [show("sct_" + "A" * 43) for _ in range(4)] == [[401]] * 3 + [[429]]
    assert show(server.secret) == [200]
    _, other = server.service.project()
    assert show(other) == [200]


def test_the_counts_are_metrics(server: Server) -> None:
    with ExitStack() as stack:
        idle(server, stack, 3)
        known(server, stack, 2)
        text = server.exchange(server.head("GET /metrics", "Connection: close")).data.decode()
    assert 'secateur_http_connections{kind="anonymous"} 4.0' in text
    assert 'secateur_http_connections{kind="known"} 2.0' in text
    assert 'secateur_http_connections_ended_total{reason="head"} 0.0' in text
