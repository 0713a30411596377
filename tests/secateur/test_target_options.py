"""--max-drop, --metric and --points of `secateur prune`."""

from typing import Any

import pytest
import typer

from pruning.spec import default_spec, parse_spec
from secateur.cli.inputs import Wanted


def into(spec: dict[str, Any], **options: Any) -> dict[str, Any]:
    found = Wanted(**options).into(spec)
    parse_spec(found)
    return found


def test_without_options_the_spec_stays_as_it_is() -> None:
    assert into({"target": {"weights": 9}}) == {"target": {"weights": 9}}


def test_a_drop_takes_the_place_of_the_target() -> None:
    found = into({"target": {"sparsity": 0.5}}, max_drop=0.02)
    assert found["target"] == {"max_drop": {"metric": "accuracy", "drop": 0.02}}


def test_without_labels_the_metric_is_the_one_that_is_measured() -> None:
    found = into(default_spec(False), max_drop=0.02)
    assert found["target"]["max_drop"]["metric"] == "cosine"


def test_a_metric_that_is_asked_for_is_measured_too() -> None:
    found = into(default_spec(False), max_drop=0.02, metric="agreement")
    assert found["target"]["max_drop"]["metric"] == "agreement"
    assert found["objective"]["metrics"] == ["cosine", "agreement"]


def test_points_are_sparsities_between_commas_in_any_order() -> None:
    assert into({}, points="0.9, 0.5,0.9")["curve"] == {"points": [0.5, 0.9]}
    kept = into({"curve": {"keep": False}}, points="0.7")
    assert kept["curve"] == {"keep": False, "points": [0.7]}


@pytest.mark.parametrize("options", [{"metric": "accuracy"}, {"points": "half"}])
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(typer.BadParameter):
        into({}, **options)
