"""Damaged uploads: whatever bytes are changed, a reader refuses cleanly or reads what is left.

`make fuzz` does the same for longer, guided by coverage.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target

EXAMPLES = 40

edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["set", "insert", "delete", "cut", "repeat"]),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\x7f\xff\xff\xff", b"-1", b"1e999", b"NaN"]),
            st.sampled_from([b"[" * 200, b'{"a":' * 200, b"../../x", b"9" * 40, b"null", b'""']),
        ),
    ),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    """The bytes with edits made one after the other, places as shares of the length."""
    for place, kind, new in changes:
        at = int(place * len(data))
        if kind == "set":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + len(new) :]
        elif kind == "cut":
            data = data[:at]
        else:
            data = data[:at] + data[at : at + 64] * 2 + data[at + 64 :]
    return data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> dict[str, tuple[Path, bytes]]:
    """Folder and seed of each target."""
    found = {}
    for name, target in TARGETS.items():
        folder = tmp_path_factory.mktemp("seed")
        found[name] = (folder, target.prepare(folder))
    return found


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_damaged_file_is_refused_or_read_and_never_crashes(
    target: Target, prepared: dict[str, tuple[Path, bytes]]
) -> None:
    folder, seed = prepared[target.name]
    assert target.read(folder, seed) is None

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(edits)
    def damaged(changes: list[tuple[float, str, bytes]]) -> None:
        target.read(folder, edited(seed, changes))

    damaged()
