import itertools

from hypothesis import given
from hypothesis import strategies as st

from secateur._sse import Frame, Parser

STREAM = (
    ': hello\n\nid: 1\nevent: state\ndata: {"a": 1}\n\n'
    "data: first\ndata: second\nid: 2\n\nid:3\r\ndata:höhe\r\n\r\nid: 4\rdata: x\r\r"
    "event: never dispatched\n\n"
).encode()
FRAMES = [
    Frame("1", "state", '{"a": 1}'),
    Frame("2", "message", "first\nsecond"),
    Frame("3", "message", "höhe"),
    Frame("4", "message", "x"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_do_not_depend_on_where_the_chunks_end(cuts: list[int]) -> None:
    borders = [0, *sorted(cuts), len(STREAM)]
    parser = Parser()
    found = [
        frame
        for start, end in itertools.pairwise(borders)
        for frame in parser.feed(STREAM[start:end])
    ]
    assert found == FRAMES


def test_an_unfinished_frame_is_not_dispatched() -> None:
    assert list(Parser().feed(b"id: 1\ndata: half")) == []
