"""Scales keep values in their order and place, and plots say what the report says."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report_example import example
from pruning.report import layer_plots, plots, study_plots, trust_plots
from pruning.report.html import report_html
from pruning.report.scale import linear, logarithmic, of_sparsity
from pruning.report.svg import Plot

FINITE = st.floats(-1e12, 1e12, allow_subnormal=False)
POSITIVE = st.floats(1e-200, 1e200)


@given(st.lists(FINITE, min_size=1, max_size=6))
def test_a_linear_scale_holds_its_values_and_few_ticks(values):
    scale = linear(values)
    assert all(-1e-6 <= scale.share(v) <= 1 + 1e-6 for v in values)
    assert len(scale.ticks) <= 6
    assert all(scale.low - 1e-9 * abs(scale.low) <= t for t, _ in scale.ticks)


@given(st.lists(POSITIVE, min_size=1, max_size=6))
def test_a_logarithmic_scale_holds_its_values_and_says_at_least_two(values):
    scale = logarithmic(values)
    assert all(-1e-6 <= scale.share(v) <= 1 + 1e-6 for v in values)
    assert 2 <= len(scale.ticks) <= 12


@given(st.lists(st.floats(0, 0.9999), min_size=2, max_size=8))
def test_a_scale_of_sparsities_runs_from_left_to_right(values):
    scale = of_sparsity(values)
    places = [scale.share(v) for v in sorted(values)]
    assert places == sorted(places)
    assert all(-1e-6 <= p <= 1 + 1e-6 for p in places)


def test_halving_what_is_kept_takes_the_same_room_wherever_it_happens():
    scale = of_sparsity([0.2, 0.98])
    first = scale.share(0.75) - scale.share(0.5)
    assert scale.share(0.95) - scale.share(0.9) == pytest.approx(first)


def test_a_bar_is_as_long_as_its_value():
    plot = Plot("x", linear([0, 100], margin=0), linear([0, 1], margin=0), height=100, left=40)
    plot.bar((0, 25), (0, 1), "f-removed")
    width = float(re.search(r'<rect[^>]*width="([\d.]+)"', plot.svg()).group(1))
    assert width == pytest.approx((plot.place_x(100) - plot.place_x(0)) / 4, abs=0.06)


def test_the_curve_marks_every_point_its_interval_the_result_and_the_allowed_drop():
    report = example(4)
    svg = study_plots.curve(report)
    assert svg.count("<circle") == len(report.curve) + 1
    assert svg.count('class="f-removed"') == 1
    assert svg.count('class="f-panel s-measured w"') == sum(
        p.source == "probe" for p in report.curve
    )
    assert svg.count('class="s-measured"') == len(report.curve)
    assert ">allowed</text>" in svg
    report.search = None
    report.spec = report.spec.model_copy(update={"gates": type(report.spec.gates)()})
    assert ">allowed</text>" not in study_plots.curve(report)
    report.curve = report.curve[:1]
    assert study_plots.curve(report) is None


def test_the_comparison_has_a_dot_for_every_run_and_a_bar_for_every_median():
    report = example(4)
    svg = study_plots.comparison(report)
    runs = [run for c in report.comparison.criteria for run in c.runs]
    assert svg.count("<circle") == len(runs)
    assert svg.count(" w2") == 2 * len(report.comparison.criteria)


def test_every_rung_that_can_be_drawn_is_and_the_one_that_leaves_is_named():
    report = example(4)
    svg = trust_plots.ladder(report)
    assert svg.count("<circle") == 2 * len(report.trust.ladder.rungs)
    assert ">80.0 %: no longer holds</text>" in svg


def test_no_line_leads_over_a_rung_that_axes_of_powers_have_no_place_for():
    report = example(4)
    rungs = report.trust.ladder.rungs
    whole = trust_plots.ladder(report)
    assert len(rungs) >= 5
    assert trust_plots.undrawn(report) == []
    rungs[2].measured = -0.001
    broken = trust_plots.ladder(report)
    assert trust_plots.undrawn(report) == [rungs[2].sparsity]
    count = re.compile(r'<path class="s-measured w"').findall
    assert (len(count(whole)), len(count(broken))) == (1, 2)
    assert "Not drawn" in report_html(report)


def test_steps_are_bars_where_they_are_few_and_lines_where_they_are_many():
    report = example(4)
    assert plots.loss_by_step(report).count("<rect") == 2 * len(report.rounds)
    report.rounds = [report.rounds[0].model_copy(update={"index": i}) for i in range(1, 41)]
    assert "<rect" not in plots.loss_by_step(report)
    report.rounds = report.rounds[:1]
    assert plots.loss_by_step(report) is None


def test_saliencies_of_zero_or_none_leave_no_trace():
    report = example(4)
    report.layers[0].saliency.min = report.layers[0].saliency.q25 = 0.0
    report.layers[1].saliency.median = 0.0
    report.layers[2].saliency = None
    svg = layer_plots.saliency(report)
    assert svg.count("s-removed w2") == 1
    assert "nan" not in svg
    report.layers[0].saliency = None
    assert layer_plots.saliency(report) is None


def test_a_page_of_a_hundred_layers_stays_small():
    page = report_html(example(100))
    assert len(page.encode()) < 3_000_000
    assert page.count("<svg") == 22
