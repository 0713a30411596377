"""report.html stands alone, runs nothing, and takes names from strangers as text."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from torch import nn

from pruning import prune
from pruning.report import layer_plots, words
from pruning.report.html import report_html
from pruning.report.schema import Report
from pruning.report.words import number

SCRIPT, MATHS = "<script>alert(1)</script>", r"$\frac$ & <b>"


def make(layers: dict[str, nn.Module], spec: dict) -> Report:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    module = nn.Sequential()
    for name, layer in layers.items():
        module.add_module(name, layer)
    x = torch.randn(80, 6)
    return prune(module, (x, x[:, :3].argmax(1)), spec).report


@pytest.fixture(scope="module")
def hostile() -> Report:
    report = make(
        {SCRIPT: nn.Linear(6, 8), "relu": nn.ReLU(), MATHS: nn.Linear(8, 3)},
        {
            "criterion": {"kind": "obs"},
            "target": {"sparsity": 0.7},
            "schedule": {"kind": "one_shot", "recomputations": 2},
            "recovery": {"kind": "fine_tune", "epochs": 1},
            "gates": {"max_drop": {"accuracy": 0.0}},
        },
    )
    report.model.name = f"{SCRIPT}\"'{MATHS}\u202e\x00 名前.onnx"
    return report


@pytest.fixture(scope="module")
def html(hostile: Report) -> str:
    return report_html(hostile)


class Page(HTMLParser):
    """Collects tags, addresses and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has {name}"
            if name == "id":
                self.ids.append(value)
            if name in {"src", "href", "action", "xlink:href", "data"}:
                self.addresses.append(value)

    def handle_data(self, data):
        self.text += data


def test_it_loads_nothing_and_runs_nothing(html):
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert all(address.startswith("#") for address in page.addresses)
    assert "://" not in html
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "default-src 'none'" in html


def test_names_are_text_in_the_page_and_in_the_plots(html):
    assert SCRIPT not in html
    assert "<b>" not in html
    page = Page(html)
    # The table of layers, and the plots (where long names may be cut in the middle).
    assert page.text.count(SCRIPT) >= 2
    assert page.text.count(MATHS) >= 3
    assert "\x00" not in html
    assert "\u202e" not in html


def test_ids_are_unique_and_every_reference_has_its_target(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    targets = {a[1:] for a in page.addresses} | set(re.findall(r"url\(#([^)]*)\)", html))
    assert targets <= set(page.ids)


def test_the_page_is_the_same_every_time(hostile, html):
    assert report_html(hostile) == html


def test_a_missed_gate_stands_at_the_top(hostile, html):
    text = Page(html).text
    missed = any(c.status == "fail" for c in hostile.checks)
    head = text[: text.index("Dense, pruned, recovered")]
    assert ("rejected by a gate" in head) == ("Gate missed." in head) == missed


def test_plots_take_their_colours_from_the_page(hostile, html):
    svg = layer_plots.sparsity(hostile)
    assert 'class="f-removed"' in svg
    assert not re.search(r"(fill|stroke|style)=", html[html.index("<svg") :])
    assert "svg .f-removed { fill: var(--removed); }" in html


def test_every_class_of_a_plot_has_its_style(html):
    style, _, page = html.partition("</style>")
    plots = re.findall("<svg.*?</svg>", page, re.DOTALL)
    used = {
        name
        for plot in plots
        for found in re.findall(r'class="([^"]*)"', plot)
        for name in found.split()
    }
    assert used - {"t", "b"} <= set(
        re.findall(r"svg (?:\w+)?\.([\w-]+)", style) + re.findall(r"svg text\.(\w+)", style)
    )


def test_many_layers_stand_side_by_side_and_their_tables_fold(hostile):
    report = hostile.model_copy(deep=True)
    first = report.layers[0]
    report.layers = [first.model_copy(update={"name": f"layer{i}"}) for i in range(43)]
    assert len(layer_plots.histograms(report)) == layer_plots.MAX_PANELS
    sparsity = layer_plots.sparsity(report)
    assert sparsity.count('class="f-removed"') == 43
    page = report_html(report)
    text = Page(page).text
    assert "the first 12 of 43 layers" in text
    assert "layer42" in text
    assert "<details><summary>43 layers, in module order" in page


def test_a_report_without_numbers_still_makes_a_page(hostile):
    report = hostile.model_copy(deep=True)
    for step in report.rounds:
        step.predicted_increase = step.measured_increase = None
    report.loss.predicted_increase = report.loss.pruned = None
    report.damping_sweep, report.checks = [], []
    report.metrics.dense = report.metrics.pruned = {}
    report.metrics.recovered = None
    for layer in report.layers:
        layer.saliency = layer.saliency_histogram = None
    assert "can't be compared" in Page(report_html(report)).text


def test_a_loss_that_was_not_predicted_is_said_to_be_so(hostile):
    report = hostile.model_copy(deep=True)
    report.rounds[0].not_predicted = "Too much work."
    report.rounds[0].predicted_increase = report.loss.predicted_increase = None
    for measured, said in ((-0.25, "lowered"), (0.25, "raised")):
        report.loss.measured_increase = measured
        text = Page(report_html(report)).text
        assert f"{said} the calibration loss by {number(0.25)} in total" in text


@pytest.mark.parametrize(("low", "high"), [(1e-150, 1e150), (1.0, 1.0), (1e-9, 1.1e-9)])
def test_histograms_of_any_range_can_be_drawn(hostile, low, high):
    report = hostile.model_copy(deep=True)
    histogram = report.layers[0].saliency_histogram
    assert histogram is not None
    bins = len(histogram.counts)
    histogram.edges = np.geomspace(low, high * 1.0001, bins + 1).tolist()
    svg = layer_plots.histograms(report)[0]
    assert svg.startswith("<svg")
    assert "nan" not in svg
    assert len(re.findall("<text", svg)) >= 4


def test_the_section_on_trust_names_layers_as_text_and_says_how_far_it_reaches(hostile, html):
    text = Page(html).text
    assert "How much depends on the calibration samples" in text
    assert "What is uncertain" in text
    assert "The quadratic model is" in text
    assert "would depend on which samples were drawn" in text
    assert hostile.trust.ladder.layers[0].name == SCRIPT
    assert SCRIPT in text
    for check in hostile.checks:
        assert words.unbroken(check.message) in text


def test_a_report_without_trust_still_makes_a_page(hostile):
    report = hostile.model_copy(deep=True)
    report.trust, report.checks = None, []
    text = Page(report_html(report)).text
    assert "How much depends" not in text
    assert "What was checked" not in text
    report = hostile.model_copy(deep=True)
    for rung in report.trust.ladder.rungs:
        rung.predicted = rung.measured = rung.own = None
        rung.error = "not finite"
    report.trust.ladder.holds_up_to = 0.0
    report.trust.bootstrap.layers = []
    assert "nothing could be measured: not finite" in Page(report_html(report)).text


@pytest.mark.parametrize("rounds", [1, 2])
def test_layers_that_were_solved_one_by_one_are_listed_with_their_errors(rounds: int):
    torch.manual_seed(0)
    module = nn.Sequential()
    module.add_module(SCRIPT, nn.Linear(6, 8))
    module.add_module("relu", nn.ReLU())
    module.add_module("wide", nn.Linear(8, 3))
    spec = {
        "objective": {"loss": "match_dense"},
        "compensation": {"kind": "layerwise"},
        "schedule": {"kind": "rounds", "rounds": rounds},
    }
    report = prune(module, torch.randn(80, 6), spec).report
    page = report_html(report)
    text = Page(page).text
    section = text[text.index("Layer by layer") : text.index("Loss, predicted against measured")]
    assert section.count(SCRIPT) == section.count("wide") == rounds
    assert ("Step" in section) == (rounds > 1)
    assert "64 × 6" in section
    for found in report.layer_outputs:
        assert number(found.relative_error) in section
    assert "! " not in section
    layers = text[text.index("Output error") : text.index("Layer by layer")]
    for layer in report.layers:
        assert number(layer.output_error) in layers

    report.layer_outputs[0].columns = 5
    text = Page(report_html(report)).text
    assert "! 5 × 6" in text
    assert "fitted to these samples and may do worse on others" in text
    report.layer_outputs = []
    text = Page(report_html(report)).text
    assert "Layer by layer" not in text
    assert "Output error" not in text
