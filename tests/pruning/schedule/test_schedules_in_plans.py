"""What a plan knows of schedules: their costs, and the checkpoint they need."""

import pytest

from pruning.errors import SecateurError
from pruning.plan import plan
from pruning.spec import parse_spec
from tests.pruning.test_plan import dataset, layer, model

TRAINED = {"kind": "fine_tune"}


def planned(schedule, rewind_to=None, criterion="obd", **parts):
    asked = {"criterion": {"kind": criterion}, "target": {"sparsity": 0.9}, "recovery": TRAINED}
    asked |= {"schedule": schedule} | parts
    return plan(parse_spec(asked), model(), {"calibration": dataset()}, rewind_to)


@pytest.mark.parametrize(
    ("schedule", "scorings"),
    [
        ({"kind": "rounds", "rounds": 4}, 4),
        ({"kind": "rounds", "rounds": 4, "recomputations": 3}, 12),
        ({"kind": "at_initialisation"}, 1),
        ({"kind": "at_initialisation", "iterations": 25}, 25),
        ({"kind": "proximal"}, 1),
    ],
)
def test_a_schedule_costs_as_much_as_all_its_scorings(schedule, scorings):
    once = planned({"kind": "one_shot", "recomputations": 1}).cost
    found = planned(schedule, compensation={"kind": "none"}).cost
    assert found.flops == scorings * once.flops
    assert found.bytes == once.bytes


def test_the_checkpoint_has_to_be_of_the_same_network():
    rewound = {"kind": "rounds", "rewind": {"kind": "weights"}}
    assert planned(rewound, model()) == planned({"kind": "rounds"})
    for other, where, what in (
        (model([layer("fc1", 16, 64)]), "rewind_to.fc2", "no layer fc2"),
        (
            model([layer("fc1", 16, 64), layer("fc2", 10, 16), layer("fc3", 2, 2)]),
            "rewind_to.fc3",
            "has a layer fc3",
        ),
        (
            model([layer("fc1", 16, 64), layer("fc2", 16, 10)]),
            "rewind_to.fc2",
            r"\[16, 10\] for layer fc2, the model \[10, 16\]",
        ),
        (model(format="pt2"), "rewind_to", "is pt2, the model onnx"),
        (model(parameters=7), "rewind_to", "7 parameters"),
    ):
        with pytest.raises(SecateurError, match=what) as caught:
            planned(rewound, other)
        assert (caught.value.code, caught.value.where) == ("rewind_invalid", where)


def test_a_full_inverse_for_many_kronecker_steps_counts_iterations_too():
    """Limits that hold for more than one step hold for steps by way of others."""
    large = model([layer("fc1", 5_000, 64), layer("fc2", 10, 5_000, is_output=True)])
    asked = {
        "criterion": {"kind": "obs", "inverse": "kfac"},
        "compensation": {"kind": "none"},
        "schedule": {"kind": "at_initialisation", "iterations": 2},
        "recovery": TRAINED,
    }
    with pytest.raises(SecateurError) as caught:
        plan(parse_spec(asked), large, {"calibration": dataset()})
    assert caught.value.code == "curvature_too_large"
    asked["schedule"] = {"kind": "at_initialisation"}
    assert plan(parse_spec(asked), large, {"calibration": dataset()}).remove == 185_000
