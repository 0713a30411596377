"""Every schedule, killed and taken up again at any point, gives the bytes of an undisturbed run."""

from functools import cache

import pytest

from pruning import checkpoint, progress, prune
from tests.pruning.schedule.jobs import TRAINED, attempt, bits, earlier, network, spec

OBS = {"kind": "obs", "damping": 0.1}


def rounds(count=3, **parts):
    return {"kind": "rounds", "rounds": count, "curve": "linear"} | parts


SCHEDULES = {
    "one shot": spec(schedule={"kind": "one_shot", "recomputations": 3}, criterion=OBS),
    "recomputations": spec(schedule=rounds(2, recomputations=2), criterion=OBS, recovery=TRAINED),
    "stopped": spec(
        0.95, schedule=rounds(5, recomputations=2, stop={"drop": 0.12}), recovery={"kind": "none"}
    ),
    "stopped at once": spec(0.95, schedule=rounds(1, recomputations=3, stop={"drop": 0.1})),
    "never stopped": spec(0.6, schedule=rounds(2, stop={"drop": 1.0}), recovery=TRAINED),
    "weights": spec(schedule=rounds(rewind={"kind": "weights", "epoch": 1}), recovery=TRAINED),
    "learning rate": spec(
        schedule=rounds(2, rewind={"kind": "learning_rate", "epoch": 1}), recovery=TRAINED
    ),
    "at initialisation": spec(
        schedule={"kind": "at_initialisation", "iterations": 9},
        criterion={"kind": "synflow"},
        recovery=TRAINED,
    ),
    "proximal": spec(schedule={"kind": "proximal", "epochs": 3}, recovery=TRAINED),
    "l1": spec(schedule={"kind": "proximal", "method": "l1", "epochs": 2}, recovery=TRAINED),
}
BACK = ("weights", "at initialisation")


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Progress is told, and training kept, at every chance: there are more places to be killed."""
    monkeypatch.setattr(progress, "INTERVAL", -1.0)
    monkeypatch.setattr(checkpoint, "PAUSE", -1.0)


def given(name):
    module, _ = network()
    return {"rewind_to": earlier(module)} if name in BACK else {}


@cache
def undisturbed(name):
    module, data = network()
    return bits(prune(module, data, SCHEDULES[name], **given(name)))


@pytest.mark.parametrize("name", SCHEDULES)
def test_killed_after_every_checkpoint(name, tmp_path):
    deaths, outcome = 0, None
    while (outcome := attempt(SCHEDULES[name], tmp_path, 1, "checkpoint", **given(name))) is None:
        deaths += 1
        assert deaths < 40
    assert deaths >= 2
    assert bits(outcome) == undisturbed(name)


@pytest.mark.parametrize("name", SCHEDULES)
def test_killed_within_steps_and_within_training(name, tmp_path):
    deaths, outcome = 0, None
    for at in (3, 5, 6, 8, 11, 15, 20):
        outcome = attempt(SCHEDULES[name], tmp_path, at, "any", **given(name))
        deaths += outcome is None
    assert deaths >= 3
    outcome = outcome or attempt(SCHEDULES[name], tmp_path, 0, "any", **given(name))
    assert bits(outcome) == undisturbed(name)


def test_a_round_whose_beginning_was_lost_is_not_resumed_in_its_middle(tmp_path):
    """Where rounds may be undone, the state before a round has to be there."""
    asked = SCHEDULES["stopped"]
    assert attempt(asked, tmp_path, 6, "checkpoint") is None  # within the third round
    (tmp_path / "round-4.safetensors").write_bytes(b"damaged")
    assert (tmp_path / "round-5.safetensors").exists()
    outcome = attempt(asked, tmp_path, 0, "checkpoint")
    assert bits(outcome) == undisturbed("stopped")


def test_a_softened_network_is_not_softened_again(tmp_path):
    """Killed after the softening, the next attempt begins with the removal."""
    asked = SCHEDULES["proximal"]
    module, data = network()
    for at in (1, 2, 3, 4):  # three epochs of softening, then the state before the first step
        assert attempt(asked, tmp_path / "all", 1, "checkpoint") is None
        assert (tmp_path / "all" / "round-0.safetensors").exists() == (at == 4)
    events = []
    prune(module, data, asked, checkpoints=tmp_path / "all", emit=events.append)
    assert "softened" not in {e.stage for e in events if e.type == "metric"}
    assert [e.phase for e in events if e.type == "phase"][:2] == ["checking", "scoring"]
