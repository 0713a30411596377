"""Bytes that are two requests to one reader and one to another are no request here.

Each is refused with a problem and the end of the connection, so that nothing of what follows is
ever read as a request. What is legal, if rare, is answered.
"""

import json
from collections.abc import Iterator

import pytest

from api.http.connection import MOST_PIPELINED
from api.http.heads import LONGEST_HEAD, LONGEST_TARGET, MOST_FIELDS
from tests.security.raw_http import Server, serve

POST = b"POST /v1/plans HTTP/1.1\r\nHost: here\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("raw")) as running:
        yield running


def get(line: bytes = b"GET /healthz HTTP/1.1", *fields: bytes, end: bytes = b"\r\n") -> bytes:
    return b"\r\n".join([line, *(fields or (b"Host: here",)), b""]) + end


FRAMING = {
    "length and coding": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "coding twice": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "coding and identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity and coding": POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "gzip": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding after a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "empty coding": POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "quoted coding": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "coding in HTTP/1.0": b"POST /v1/plans HTTP/1.0\r\nHost: here\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "lengths that differ": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
    "lengths that agree": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "list of lengths": POST + b"Content-Length: 1, 1\r\n\r\nx",
    "length with plus": POST + b"Content-Length: +1\r\n\r\nx",
    "length with minus": POST + b"Content-Length: -1\r\n\r\nx",
    "length with underscore": POST + b"Content-Length: 1_0\r\n\r\nx",
    "length in hexadecimal": POST + b"Content-Length: 0x1\r\n\r\nx",
    "length with a space": POST + b"Content-Length: 1 1\r\n\r\nx",
    "length that may be octal": POST + b"Content-Length: 0010\r\n\r\nx",
    "empty length": POST + b"Content-Length:\r\n\r\nx",
    "length over 64 bits": POST + b"Content-Length: 18446744073709551617\r\n\r\nx",
}
LINES = {
    "bare LF everywhere": b"GET /healthz HTTP/1.1\nHost: here\n\n",
    "bare LF after the request line": b"GET /healthz HTTP/1.1\nHost: here\r\n\r\n",
    "bare LF after a field": b"GET /healthz HTTP/1.1\r\nHost: here\nX: y\r\n\r\n",
    "bare LF at the end": b"GET /healthz HTTP/1.1\r\nHost: here\r\n\n",
    "bare LF before the request": b"\n" + SMUGGLED,
    "bare CR in a field": b"GET /healthz HTTP/1.1\r\nHost: here\rX: y\r\n\r\n",
    "bare CR at the end": b"GET /healthz HTTP/1.1\r\nHost: here\r\n\rX: y\r\n\r\n",
    "folded field": b"GET /healthz HTTP/1.1\r\nHost: here\r\nX: y\r\n z\r\n\r\n",
    "folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "folded first field": b"GET /healthz HTTP/1.1\r\n Host: here\r\n\r\n",
    "space before the colon": POST + b"Content-Length : 1\r\n\r\nx",
    "space in a name": get(b"GET /healthz HTTP/1.1", b"Host: here", b"X Y: z"),
    "no colon": get(b"GET /healthz HTTP/1.1", b"Host: here", b"foo"),
    "empty name": get(b"GET /healthz HTTP/1.1", b"Host: here", b": foo"),
    "NUL in a value": get(b"GET /healthz HTTP/1.1", b"Host: here", b"X: a\0b"),
    "control character in a value": get(b"GET /healthz HTTP/1.1", b"Host: here", b"X: a\x01b"),
    "delete in a value": get(b"GET /healthz HTTP/1.1", b"Host: here", b"X: a\x7fb"),
    "NUL in a name": get(b"GET /healthz HTTP/1.1", b"Host: here", b"X\0: a"),
    "eight bits in a name": get(b"GET /healthz HTTP/1.1", b"Host: here", b"X\xff: a"),
}
TARGETS = {
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": get(b"GET /healthz HTTP/1.1", b"Host: here", b"Host: there"),
    "Host with a path": get(b"GET /healthz HTTP/1.1", b"Host: here/there"),
    "Host with a space": get(b"GET /healthz HTTP/1.1", b"Host: here there"),
    "another host in the target": get(b"GET http://there/healthz HTTP/1.1"),
    "user in the target": get(b"GET http://here@there/healthz HTTP/1.1"),
    "authority": get(b"GET here:80 HTTP/1.1"),
    "asterisk": get(b"GET * HTTP/1.1"),
    "fragment": get(b"GET /healthz#x HTTP/1.1"),
    "space in the target": get(b"GET /healthz x HTTP/1.1"),
    "NUL in the target": get(b"GET /healthz\0 HTTP/1.1"),
    "eight bits in the target": get(b"GET /healthz\xff HTTP/1.1"),
    "HTTP/2.0": get(b"GET /healthz HTTP/2.0"),
    "HTTP/1.2": get(b"GET /healthz HTTP/1.2"),
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/0.9 by name": get(b"GET /healthz HTTP/0.9"),
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "other protocol": get(b"SOURCE /healthz ICE/1.0"),
    "space after the version": get(b"GET /healthz HTTP/1.1 "),
    "tabs": get(b"GET\t/healthz\tHTTP/1.1"),
    "small letters": get(b"get /healthz HTTP/1.1"),
    "unknown method": get(b"FOO /healthz HTTP/1.1"),
    "CONNECT": get(b"CONNECT here:80 HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    "nothing but NUL": bytes(100),
}
BODIES = {
    "LF after a chunk's size": CHUNKED + b"2\n{}\r\n0\r\n\r\n",
    "LF after a chunk": CHUNKED + b"2\r\n{}\n0\r\n\r\n",
    "LF after the last chunk": CHUNKED + b"2\r\n{}\r\n0\n\r\n",
    "LF at the end": CHUNKED + b"2\r\n{}\r\n0\r\n\n",
    "LF in an extension": CHUNKED + b"2;a=b\n{}\r\n0\r\n\r\n",
    "CR in an extension": CHUNKED + b"2;a\rb\r\n{}\r\n0\r\n\r\n",
    "space after a size": CHUNKED + b"2 \r\n{}\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"2\r\n{}}\r\n0\r\n\r\n",
    "negative size": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "size with 0x": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "size with underscore": CHUNKED + b"0_2\r\n{}\r\n0\r\n\r\n",
    "no size": CHUNKED + b"\r\n{}\r\n0\r\n\r\n",
    "size over 64 bits": CHUNKED + b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    "length in a trailer": CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n",
    "coding in a trailer": CHUNKED + b"2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer with LF": CHUNKED + b"2\r\n{}\r\n0\r\nX: y\n\r\n",
}


@pytest.mark.parametrize(
    "sent", [pytest.param(v, id=k) for k, v in (FRAMING | LINES | TARGETS).items()]
)
def test_a_head_with_two_meanings_is_refused_and_ends_the_connection(
    server: Server, sent: bytes
) -> None:
    answer = server.exchange(sent + SMUGGLED)
    assert answer.statuses == [400], answer.data
    assert answer.closed
    assert answer.header("connection") == "close"
    problem = json.loads(answer.data.partition(b"\r\n\r\n")[2])
    assert problem["code"] == "request_malformed"
    assert problem["request_id"] == answer.header("x-request-id")
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("x-frame-options") == "DENY"


@pytest.mark.parametrize("sent", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("split", [False, True], ids=["at once", "byte by byte"])
def test_a_body_with_two_meanings_is_refused_and_ends_the_connection(
    server: Server, sent: bytes, split: bool
) -> None:
    own = f"Authorization: Bearer {server.secret}\r\nContent-Type: application/json\r\n".encode()
    sent = sent.replace(b"Host: here\r\n", b"Host: here\r\n" + own)
    with server.client() as client:
        if split:
            head, _, body = sent.partition(b"\r\n\r\n")
            client.send(head + b"\r\n\r\n")
            for byte in body:
                client.send(bytes([byte]))
        else:
            client.send(sent)
        client.send(SMUGGLED)
        answer = client.answer()
    assert answer.statuses == [400], answer.data
    assert b"request_malformed" in answer.data
    assert answer.closed


def test_a_trailer_is_no_header(server: Server) -> None:
    """Else a client could give itself headers that a proxy takes out of heads."""
    answer = server.exchange(
        b"POST /v1/keys HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n"
        b"0\r\nAuthorization: Bearer " + server.secret.encode() + b"\r\n\r\n"
    )
    assert answer.statuses == [401]


def test_what_is_legal_is_answered(server: Server) -> None:
    for sent in (
        SMUGGLED,
        b"\r\n" + SMUGGLED,
        get(b"GET http://HERE/healthz HTTP/1.1"),
        get(b"GET /healthz?a=b HTTP/1.1", b"Host:"),
        get(b"GET /healthz HTTP/1.1", b"Host: [::1]:8080", b"X: \xff\t "),
        b"GET /healthz HTTP/1.0\r\n\r\n",
        get(b"GET /healthz HTTP/1.1", b"Host: here", b"Content-Length: 2 ") + b"{}",
        get(b"GET /healthz HTTP/1.1", b"Host: here", b"Transfer-Encoding: CHUNKED")
        + b'2;a=b;c="d"\r\n{}\r\n0\r\nX: y\r\n\r\n',
    ):
        answer = server.exchange(sent, silent=0.3)
        assert answer.statuses == [200], (sent, answer.data)


def test_http_1_0_is_answered_without_chunks_and_closed(server: Server) -> None:
    answer = server.exchange(b"GET /openapi.json HTTP/1.0\r\nHost: here\r\n\r\n")
    assert answer.closed
    assert answer.header("transfer-encoding") is None
    json.loads(answer.data.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("kind", [b"h2c", b"websocket"])
def test_an_upgrade_is_not_made_and_nothing_after_it_is_read(server: Server, kind: bytes) -> None:
    fields = (b"Host: here", b"Connection: upgrade", b"Upgrade: " + kind)
    with server.client() as client:
        client.send(get(b"GET /healthz HTTP/1.1", *fields) + SMUGGLED)
        client.send(SMUGGLED)
        answer = client.answer()
    assert answer.statuses == [200]
    assert answer.header("connection") == "close"
    assert answer.closed


def test_nothing_is_read_after_a_request_that_closes(server: Server) -> None:
    answer = server.exchange(
        get(b"GET /healthz HTTP/1.1", b"Host: here", b"Connection: close") + SMUGGLED
    )
    assert answer.statuses == [200]
    assert answer.closed


def test_an_error_after_good_requests_comes_after_their_responses(server: Server) -> None:
    """Not in the middle of one, where a proxy would take it for part of that response."""
    answer = server.exchange(server.head("GET /openapi.json") + SMUGGLED + b"GARBAGE\r\n\r\n")
    assert answer.statuses == [200, 200, 400]
    assert answer.closed


def test_pipelined_requests_are_answered_in_order_up_to_a_number(server: Server) -> None:
    few = b"".join(get(b"GET /v1/%d HTTP/1.1" % number) for number in range(20))
    answer = server.exchange(few, silent=1.0)
    assert answer.statuses == [401] * 20
    assert answer.data.index(b"/v1/7") < answer.data.index(b"/v1/11")

    answer = server.exchange(SMUGGLED * 5000)
    assert answer.statuses == [200] * (MOST_PIPELINED + 1) + [429]
    assert answer.closed


@pytest.mark.parametrize(
    "sent",
    [
        get(b"GET /" + b"a" * LONGEST_TARGET + b" HTTP/1.1"),
        get(b"GET /?" + b"a=b&" * LONGEST_TARGET + b" HTTP/1.1"),
        b"GET /" + b"a" * 1_000_000,
        get(b"GET / HTTP/1.1", b"Host: here", *[b"X: y"] * MOST_FIELDS),
        get(b"GET / HTTP/1.1", b"Host: here", b"X: " + b"y" * LONGEST_HEAD),
        b"GET / HTTP/1.1\r\nHost: here\r\nX: " + b"y" * 1_000_000,
        b"GET / HTTP/1.1\r\n" + b"x" * 1_000_000,
        b"\r\n" * 500_000,
    ],
    ids=[
        "target", "query", "target without end", "fields", "field", "field without end",
        "name without end", "empty lines",
    ],
)  # fmt: skip
def test_a_head_over_the_limit_is_refused(server: Server, sent: bytes) -> None:
    answer = server.exchange(sent)
    assert answer.statuses == [431]
    assert b"head_too_large" in answer.data
    assert answer.closed


@pytest.mark.parametrize(
    "body",
    [
        b"1\r\nx\r\n" * 200_000,
        b"2;" + b"a" * 2_000_000,
        b"0\r\nX: " + b"y" * 2_000_000,
        b"0" * 2_000_000,
    ],
    ids=["chunks of a byte", "extension", "trailer", "zeros"],
)
def test_a_body_that_is_mostly_framing_is_refused(server: Server, body: bytes) -> None:
    head = server.head("POST /v1/models?name=x", "Transfer-Encoding: chunked")
    answer = server.exchange(head + body)
    assert answer.statuses == [400], answer.data
    assert b"request_malformed" in answer.data
    assert answer.closed


def test_100_continue_is_said_after_the_key_was_seen(server: Server) -> None:
    fields = ("Content-Length: 2", "Expect: 100-continue", "Content-Type: application/json")
    with server.client() as client:
        client.send(server.head("POST /v1/plans", *fields, key=False))
        answer = client.answer()
    assert answer.statuses == [401]
    assert answer.closed

    with server.client() as client:
        client.send(server.head("POST /v1/plans", *fields))
        assert client.answer(until=b"\r\n\r\n").statuses == [100]
        client.send(b"{}")
        assert client.answer(silent=0.5).statuses == [422]


def test_a_refusal_reaches_a_client_that_goes_on_sending(server: Server) -> None:
    """Closing a socket with bytes unread would reset it, and the client would see no answer."""
    with server.client() as client:
        client.send(server.head("POST /v1/models", "Content-Length: 100000000", key=False))
        for _ in range(50):
            client.send(b"x" * 65536)
        answer = client.answer()
    assert answer.statuses == [401]
    assert answer.closed
