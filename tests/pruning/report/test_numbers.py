"""One way to write numbers, wherever they are read."""

import pytest

from pruning.report import numbers, words
from pruning.report.schema import Check


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.8, "80.0 %"), (0.9312, "93.1 %"), (1.0, "100.0 %"), (0.0, "0.0 %"),
        (0.9995, "99.95 %"), (0.99999, "99.999 %"), (0.0004, "0.04 %"), (-1e-12, "0.0 %"),
        (None, "-"),
    ],
)  # fmt: skip
def test_a_share_is_not_rounded_to_nothing_or_all(value, shown):
    assert numbers.share(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"), (1.1, "1.100"), (0.18734, "0.1873"), (0.001, "0.001000"), (9.4e-4, "9.40e-4"),
        (999.96, "1,000"), (12345.6, "12,346"), (2.5e7, "2.50e7"), (-3.2e-9, "-3.20e-9"),
        (float("nan"), "not finite"), (None, "-"),
    ],
)  # fmt: skip
def test_a_measured_value_keeps_its_digits(value, shown):
    assert numbers.number(value) == shown


def test_what_was_asked_for_is_as_short_as_it_was_written():
    assert [numbers.asked(v) for v in (0.01, 2.0, 1e-5, 0.5)] == ["0.01", "2", "1e-5", "0.5"]
    assert [numbers.asked(v) for v in (20000.0, 1e10, 999.0)] == ["20,000", "1e10", "999"]
    assert numbers.limit("accuracy", 0.01) == "1 point"
    assert numbers.asked_share(0.95) == "95 %"


@pytest.mark.parametrize(
    ("name", "value", "found", "limit"),
    [
        ("zeros", 1894.0, "1,894", "1,894"),
        ("trust.dead_inputs", 10.0, "10", "10"),
        ("onnxruntime_accuracy", 1 / 450, "0.002222", "0.002222"),
        ("onnxruntime_outputs", 1e-4, "1.00e-4", "0.0001"),
        ("max_drop.accuracy", 0.02, "2.00 points", "2 points"),
    ],
)
def test_a_check_and_its_limit_are_written_like_every_other_number(name, value, found, limit):
    check = Check(name=name, status="pass", value=value, threshold=value, message="")
    assert (words.found(check, value), words.found(check, value, asked=True)) == (found, limit)


def test_a_number_stays_with_its_unit_and_nothing_else_is_bound():
    text = "93.1 % of 3 samples, 1.5 MiB, 12 ms, by 2 points; a 4 minute walk, 5 sides"
    kept = words.unbroken(text)
    assert "93.1\u00a0%" in kept
    assert "1.5\u00a0MiB" in kept
    assert "12\u00a0ms" in kept
    assert "2\u00a0points" in kept
    assert "3 samples" in kept
    assert "4 minute" in kept
    assert "5 sides" in kept
