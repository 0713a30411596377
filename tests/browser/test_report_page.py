"""report.html in a real browser: drawn, quiet, alone, and readable on a phone and at night."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.report_example import example
from pruning import prune
from pruning.report.html import report_html
from pruning.report.schema import Report
from tests.browser.devtools import Browser, Tab, tab

pytestmark = pytest.mark.browser

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
DEVICES = {
    "desktop-light": (1180, False),
    "desktop-dark": (1180, True),
    "phone-light": (360, False),
    "phone-dark": (360, True),
}

DRAWN = """
Array.from(document.querySelectorAll('svg'), svg => {
  const box = svg.getBoundingClientRect();
  const shapes = Array.from(svg.querySelectorAll('path,rect,circle')).filter(shape => {
    const size = shape.getBBox(), style = getComputedStyle(shape);
    const seen = style.fill !== 'none' || style.stroke !== 'none';
    return seen && (size.width > 0 || size.height > 0);
  });
  return {label: svg.getAttribute('aria-label'), width: box.width, height: box.height,
          shapes: shapes.length};
})
"""

MISPLACED = """
Array.from(document.querySelectorAll('svg'), svg => {
  const view = svg.viewBox.baseVal, told = [];
  const words = Array.from(svg.querySelectorAll('text'), t => [t.textContent, t.getBBox()]);
  for (const [text, b] of words)
    if (b.x < -1 || b.y < -1 || b.x + b.width > view.width + 1 || b.y + b.height > view.height + 1)
      told.push('outside: ' + text);
  words.forEach(([text, a], i) => words.slice(i + 1).forEach(([other, b]) => {
    const across = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
    const down = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
    if (across > 1 && down > 4) told.push('overlap: ' + text + ' | ' + other);
  }));
  return told.map(x => svg.getAttribute('aria-label') + ': ' + x);
}).flat()
"""

CONTRAST = """
(() => {
  const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = text => rgb(text).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = node => {
    for (let n = node; n; n = n.parentElement) {
      const colour = getComputedStyle(n).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return 'rgb(255,255,255)';
  };
  const words = document.querySelectorAll('h1,h2,h3,p,td,th,dt,dd,summary,svg text,.mark,.state');
  return Array.from(words, node => {
    const style = getComputedStyle(node);
    const [a, b] = [light(node.closest('svg') ? style.fill : style.color), light(ground(node))];
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), node.textContent.slice(0, 40)];
  }).filter(([contrast]) => contrast < 4.5);
})()
"""


def small_job() -> Report:
    """A real report, of a network with little to say."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(80, 6)
    spec = {
        "criterion": {"kind": "obs", "damping": "auto"},
        "target": {"sparsity": 0.7},
        "recovery": {"kind": "fine_tune", "epochs": 1},
        "gates": {"max_drop": {"accuracy": 0.0}},
    }
    return prune(module, (x, x[:, :3].argmax(1)), spec).report


def bare() -> Report:
    """A report without anything that a job may leave out."""
    report = example(3)
    report.trust = report.search = report.comparison = report.latency = report.sizes = None
    report.curve, report.checks, report.damping_sweep, report.layer_outputs = [], [], [], []
    report.metrics.dense = report.metrics.pruned = report.metrics.drops = {}
    report.metrics.recovered, report.warnings = None, []
    return report


PAGES = {
    "example": lambda: example(12),
    "hundred": lambda: example(100),
    "small": small_job,
    "bare": bare,
}
PLOTS = {
    # metrics, curve, sparsity, saliency, ladder, steps, intervals, damping, comparison, latency
    "example": 10 + 11,
    "hundred": 10 + 12,
    # sparsity, saliency, steps
    "bare": 3 + 2,
}


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / f"{request.param}.html"
    path.write_text(report_html(PAGES[request.param]()), "utf-8")
    return path


@pytest.fixture(params=DEVICES)
def shown(request: pytest.FixtureRequest, browser: Browser, page: Path) -> Iterator[Tab]:
    width, dark = DEVICES[request.param]
    with tab(browser, width, dark=dark) as found:
        found.open(page.as_uri())
        found.screenshot(SHOTS / f"report-{page.stem}-{request.param}.png")
        found.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
        yield found


def test_a_report_opens_from_disk_quietly_and_is_drawn_whole(shown: Tab, page: Path) -> None:
    assert shown.complaints() == []
    assert shown.requests() == []
    assert shown.run("document.scripts.length") == 0

    plots: list[dict[str, Any]] = shown.run(DRAWN)
    written = len(re.findall("<svg", page.read_text("utf-8")))
    assert len(plots) == PLOTS.get(page.stem, written) == written > 2
    for plot in plots:
        assert plot["width"] > 150, plot
        assert plot["height"] > 40, plot
        assert plot["shapes"] >= 4, plot

    room = shown.run("document.documentElement.clientWidth")
    assert shown.run("document.documentElement.scrollWidth") <= room
    wide = shown.run(
        "Array.from(document.querySelectorAll('main *')).filter(n => !n.closest('.table, pre') && "
        "n.getBoundingClientRect().right > document.documentElement.clientWidth + 1)"
        ".map(n => n.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert shown.run(MISPLACED) == []
    assert shown.run(CONTRAST) == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_page_follows_the_colours_of_the_device(browser: Browser, page: Path, dark: bool) -> None:
    with tab(browser, 1180, dark=dark) as found:
        found.open(page.as_uri())
        colour = found.run("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(v) for v in re.findall(r"\d+", colour)[:3]) < 384) == dark


def test_a_report_is_printed_dark_on_white_also_from_a_dark_device(
    browser: Browser, page: Path
) -> None:
    path = SHOTS / f"report-{page.stem}.pdf"
    with tab(browser, 794, dark=True) as found:
        found.open(page.as_uri())
        found.print_pages(path)
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        browser.call("Emulation.setEmulatedMedia", found.session, media="print", features=dark)
        paper = found.run("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"
        assert found.run(CONTRAST) == []
    assert path.read_bytes().startswith(b"%PDF")
