"""How much of a job is done, and what is left of it, from what was planned and what was clocked."""

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pruning import progress
from pruning.course import Course
from pruning.data.batches import ArrayData
from pruning.events import Event, PhaseEvent, ProgressEvent
from pruning.loop import prune, prune_admitted
from pruning.progress import Narrator
from pruning.spec import parse_spec
from pruning.visits import Price, times
from pruning.workload import UNFINISHED, Estimate, Stage, Workload, drifted


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def visit(work: Workload, clock: Clock, kind: str, seconds: float) -> None:
    work.begin(kind)
    clock.now += seconds
    work.end()


def planned(clock: Clock, **visits: list[Price]) -> Workload:
    work = Workload(clock)
    work.plan([Stage("all", {kind.replace("_", "."): prices for kind, prices in visits.items()})])
    work.reach("all")
    return work


def estimate(work: Workload) -> Estimate:
    found = work.estimate()
    assert found is not None
    return found


def eta(work: Workload) -> float:
    """What the estimate settles at: it is smoothed over several."""
    for _ in range(20):
        found = estimate(work).eta_seconds
    assert found is not None
    return found


def test_kinds_not_visited_are_priced_at_the_pace_of_the_others():
    clock = Clock()
    assert Workload(clock).estimate() is None
    work = planned(clock, evaluating=times(3, passes=100), scoring=times(1, passes=1000))
    assert (estimate(work).fraction, estimate(work).eta_seconds) == (0.0, None)
    visit(work, clock, "evaluating", 2.0)
    visit(work, clock, "evaluating", 2.0)
    assert eta(work) == pytest.approx(2.0 + 20.0, rel=0.01)
    assert estimate(work).fraction == pytest.approx(4.0 / 26.0, rel=0.01)


def test_a_first_visit_that_had_to_load_things_does_not_stand_for_the_others():
    clock = Clock()
    work = planned(clock, evaluating=times(2, passes=100), pruning=times(100, passes=100))
    visit(work, clock, "evaluating", 1.0)
    visit(work, clock, "evaluating", 1.0)
    visit(work, clock, "pruning", 9.0)
    assert eta(work) == pytest.approx(99 * 3.0, rel=0.1)
    for _ in range(9):
        visit(work, clock, "pruning", 1.0)
    assert eta(work) == pytest.approx(90.0, rel=0.1)


def test_visits_that_cost_as_much_take_as_long_whatever_their_price_was():
    clock = Clock()
    run = [Price(seconds=s) for s in (8.0, 4.0, 2.0, 1.0)]
    work = planned(clock, scoring=run * 3)
    for seconds in (9.0, 9.0, 6.0, 1.0, 9.0, 9.0, 6.0, 1.0):
        visit(work, clock, "scoring", seconds)
    assert eta(work) == pytest.approx(25.0, rel=0.01)


def test_a_visit_of_next_to_no_price_says_nothing_of_dear_ones():
    """Scoring at random has a price of none, and takes its milliseconds all the same."""
    clock = Clock()
    work = planned(clock, scoring=[Price(seconds=1.0), Price(), Price(), Price(seconds=3.0)])
    for seconds in (1.0, 0.05, 0.05):
        visit(work, clock, "scoring", seconds)
    assert eta(work) == pytest.approx(3.0, rel=0.2)


def test_a_loop_over_a_whole_visit_tells_when_it_ends_and_loops_inside_it_do_not():
    clock = Clock()
    work = planned(clock, recovering=times(1, seconds=1.0))
    work.begin("recovering")
    for done in range(1, 6):
        clock.now += 2.0
        work.loop(done, 20, whole=True)
        work.loop(1, 3, whole=False)
        work.loop(2, 3, whole=False)
    assert estimate(work).fraction == pytest.approx(0.25)


def test_the_first_visit_of_a_kind_tells_of_the_others_while_it_runs():
    """Its first unit loads things, and says nothing of those that follow."""
    clock = Clock()
    work = planned(clock, recovering=times(3, seconds=1.0))
    work.begin("recovering")
    clock.now += 5.0
    work.loop(1, 101, whole=True)
    for done in range(2, 52):
        clock.now += 0.1
        work.loop(done, 101, whole=True)
    assert eta(work) == pytest.approx(5.0 + 2 * 15.0, rel=0.01)


def test_a_part_counts_by_itself_and_not_in_its_phase():
    clock = Clock()
    work = planned(clock, scoring=times(3, seconds=1), scoring_ladder=times(1, seconds=1))
    work.begin("scoring")
    clock.now += 1.0
    visit(work, clock, "scoring.ladder", 50.0)
    work.end()
    visit(work, clock, "scoring", 1.0)
    assert eta(work) == pytest.approx(1.0, rel=0.01)


def test_what_is_passed_over_is_not_waited_for():
    clock = Clock()
    work = Workload(clock)
    steps = {"scoring": times(2, seconds=10.0)}
    work.plan([Stage("files", {"exporting": times(1, seconds=1.0)})])
    work.plan([Stage(f"probe-{n}", steps) for n in range(1, 7)])
    work.reach("probe-1")
    visit(work, clock, "scoring", 10.0)
    visit(work, clock, "scoring", 10.0)
    assert eta(work) == pytest.approx(101.0, rel=0.01)
    work.reach("probe-4")
    visit(work, clock, "scoring", 10.0)
    assert eta(work) == pytest.approx(51.0, rel=0.01)
    work.reach("probe-9")  # nobody planned it
    visit(work, clock, "scoring", 10.0)
    work.reach("files")
    assert estimate(work).eta_seconds == pytest.approx(1.0, rel=0.01)
    assert estimate(work).fraction > 0.9


def test_what_an_earlier_process_did_counts_as_done():
    clock = Clock()
    work = Workload(clock)
    work.plan([Stage(f"main/{n}", {"recovering": times(1, seconds=5.0)}) for n in range(10)])
    work.reach("main/0")
    work.reach("main/7", resumed=True)
    work.reach("main/8")
    work.begin("recovering")
    assert estimate(work).fraction == pytest.approx(0.8, rel=0.01)
    assert estimate(work).elapsed_seconds == 0.0
    assert eta(work) == pytest.approx(10.0, rel=0.01)


def test_the_fraction_never_falls_and_is_one_only_at_the_end():
    clock = Clock()
    work = planned(clock, scoring=times(1, seconds=1.0))
    seen = []
    work.begin("scoring")
    for _ in range(40):
        clock.now += 1.0
        seen.append(estimate(work).fraction)
    work.plan([Stage("more", {"pruning": times(1, seconds=1000.0)})])
    assert estimate(work).fraction == max(seen) <= UNFINISHED
    assert seen == sorted(seen)
    work.finish()
    assert (estimate(work).fraction, estimate(work).eta_seconds) == (1.0, 0.0)


def test_what_is_guessed_between_two_events_moves_and_stays_below_what_is_left():
    assert drifted(0.5, None, 10.0) == drifted(0.5, 5.0, 0.0) == 0.5
    soon = drifted(0.5, 10.0, 0.1)
    assert soon == pytest.approx(0.5 + 0.5 * 0.1 / 10.0, rel=0.05)
    assert soon < drifted(0.5, 10.0, 1.0) < drifted(0.5, 10.0, 1e6) <= 0.75


def test_two_processes_are_told_as_one_job():
    clock = Clock()
    course = Course(clock)
    begun = ProgressEvent(phase="scoring", done=0, total=0, fraction=0.6, eta_seconds=10.0)
    first = course.told(begun)
    clock.now = 4.0
    alive = course.alive(4.0)
    assert 0.6 < (alive.fraction or 0) < 0.8
    assert alive.eta_seconds == 6.0
    clock.now = 5.0
    assert course.told(PhaseEvent(phase="verifying")) == PhaseEvent(phase="verifying")
    second = course.told(ProgressEvent(phase="verifying", done=0, total=0))
    third = course.told(ProgressEvent(phase="verifying", done=1, total=2, fraction=0.3))
    for event in (first, second, third):
        assert isinstance(event, ProgressEvent)
    assert second.fraction == third.fraction == alive.fraction  # type: ignore[union-attr]
    assert second.eta_seconds == 5.0  # type: ignore[union-attr]
    assert second.elapsed_seconds == 5.0  # type: ignore[union-attr]


PLANNED: dict[str, dict[str, Any]] = {
    "one shot": {"criterion": {"kind": "obd"}},
    "rounds": {
        "schedule": {"kind": "rounds", "rounds": 2},
        "recovery": {"kind": "fine_tune", "epochs": 1},
        "comparison": {"criteria": [{"kind": "magnitude"}, {"kind": "random"}], "seeds": 2},
    },
    "curve": {"curve": {"points": [0.3, 0.6]}},
    "search": {
        "target": {"max_drop": {"drop": 0.05, "probes": 3}},
        "comparison": {"criteria": [{"kind": "random"}]},
    },
    "layer by layer": {
        "criterion": {"kind": "layer_obs"}, "compensation": {"kind": "layerwise"},
        "comparison": {"criteria": [{"kind": "magnitude"}]},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PLANNED)
def test_stages_are_reached_by_the_names_and_in_the_order_in_which_they_are_planned(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    planned: list[str] = []
    reached: list[str] = []
    plan, reach = Workload.plan, Workload.reach

    def planning(self: Workload, stages: Iterable[Stage]) -> None:
        listed = list(stages)
        planned[:0] = [stage.name for stage in listed]
        plan(self, listed)

    def reaching(self: Workload, stage: str, *, resumed: bool = False) -> None:
        reached.append(stage)
        reach(self, stage, resumed=resumed)

    monkeypatch.setattr(Workload, "plan", planning)
    monkeypatch.setattr(Workload, "reach", reaching)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    inputs = torch.randn(120, 6)
    data = ArrayData({"x": inputs}, inputs[:, :3].argmax(1))
    prune(module, data, {"criterion": {"kind": "magnitude"}} | PLANNED[name])
    assert len(set(planned)) == len(planned)
    # A search may take more probes than are planned, or fewer.
    expected = [stage for stage in planned if stage in reached]
    assert [stage for stage in reached if stage in planned] == expected
    unplanned = [stage for stage in reached if stage not in planned]
    assert all(stage.startswith("probe-") for stage in unplanned)
    skipped = [stage for stage in planned if stage not in reached]
    assert all(stage.startswith("probe-") for stage in skipped)


class Counted(FlopCounterMode):
    """A clock that stands for the floating-point operations of matrix products, all of them."""

    def __init__(self) -> None:
        super().__init__(display=False)

    def __call__(self) -> float:
        return self.get_total_flops() / 1e7


JOBS = {
    "trust": {"criterion": {"kind": "obd"}, "trust": {"bootstrap": 0}},
    "rounds": {
        "criterion": {"kind": "magnitude"},
        "schedule": {"kind": "rounds", "rounds": 4},
        "recovery": {"kind": "fine_tune", "epochs": 8},
        "trust": {"checks": False, "ladder": False, "bootstrap": 0},
    },
    "search": {
        "criterion": {"kind": "magnitude"},
        "target": {"max_drop": {"drop": 0.02}},
        "trust": {"checks": False, "ladder": False, "bootstrap": 0},
    },
    "comparison": {
        "criterion": {"kind": "obd"},
        "comparison": {"criteria": [{"kind": "magnitude"}, {"kind": "random"}], "seeds": 3},
        "trust": {"checks": False, "ladder": False, "bootstrap": 0},
    },
}


@pytest.mark.parametrize("name", JOBS)
def test_half_way_through_the_work_of_a_job_the_estimate_is_within_a_factor_of_two(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(1200, 8)
    data = ArrayData({"x": inputs}, inputs[:, :4].argmax(1))
    seen: list[tuple[float, float, float | None]] = []
    with Counted() as clock:

        def emit(event: Event) -> None:
            if isinstance(event, ProgressEvent) and event.fraction is not None:
                seen.append((clock(), event.fraction, event.eta_seconds))

        narrator = Narrator(emit, clock)
        narrator.phase("checking")
        prune_admitted(
            module, data, parse_spec(JOBS[name]), facts=None, narrator=narrator, checkpoints=None,
            rewind_to=None,
        )  # fmt: skip
        narrator.finish()
    whole = clock()
    fractions = [fraction for _, fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    known = [s for s in seen if s[2] is not None]
    at, _, eta = min(known, key=lambda s: abs(s[0] - whole / 2.0))
    assert eta is not None
    assert 0.25 * whole < at < 0.75 * whole
    assert abs(math.log2(eta / (whole - at))) <= 1.0, (name, at, eta, whole)
    late = [(at, eta) for at, _, eta in known if at > 0.5 * whole]
    assert max(eta for _, eta in late if eta is not None) < whole
    assert fractions[-2] > 0.85, fractions[-2]
