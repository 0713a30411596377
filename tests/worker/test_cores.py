"""Workers on one machine share its cores, and a job's children get the number that was settled."""

from pathlib import Path

import pytest
from bench import Bench

from pruning import threads
from worker import cores
from worker.slots import House, Occupant


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four processors without a quota, nothing asked for."""
    monkeypatch.setattr(threads, "cpus", lambda: frozenset(range(4)))
    monkeypatch.setattr(threads, "quota", lambda root=None: None)
    for name in ("SECATEUR_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def test_the_processes_of_one_service_share_the_cores(four: None, tmp_path: Path):
    assert cores.share(tmp_path, 1) == 4
    assert cores.share(tmp_path, 2) == 2
    assert cores.share(tmp_path, 9) == 1


def test_services_that_use_one_slots_folder_share_the_processors_they_have_in_common(
    four: None, tmp_path: Path
):
    own = House(tmp_path, Occupant(frozenset(range(4))))
    assert cores.share(tmp_path, 1) == 4
    other = House(tmp_path, Occupant(frozenset(range(4))))
    checks = House(tmp_path)
    assert cores.share(tmp_path, 1) == 2
    other.close()
    elsewhere = House(tmp_path, Occupant(frozenset(range(4, 8))))
    assert cores.share(tmp_path, 1) == 4
    for house in (own, checks, elsewhere):
        house.close()


def test_the_house_of_a_dead_worker_takes_no_cores(four: None, tmp_path: Path):
    left = tmp_path / "1-dead"
    left.mkdir()
    (left / "lock").write_text("[[0, 1, 2, 3], 2, 2]")
    assert cores.share(tmp_path, 1) == 4


def test_what_is_asked_for_is_not_shared(
    four: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores.share(tmp_path, 9) == 3


def test_a_child_started_ahead_with_another_number_of_threads_is_replaced(bench: Bench):
    place = bench.place(warm_children=True)
    place.prepare()
    stale = place._warm[0]
    place.settings = place.settings.model_copy(update={"threads": 2})
    became, job = bench.attempt("confess", place, limits=[])
    assert became == "succeeded"
    assert stale.returncode is not None
    assert job.summary["environ"]["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize("said", [None, "ACTIVE"])
def test_children_wait_asleep_unless_the_user_says_otherwise(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, said: str | None
):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", said)
    _, job = bench.attempt("confess", bench.place(), limits=[])
    assert job.summary["environ"]["OMP_WAIT_POLICY"] == (said or "PASSIVE")
