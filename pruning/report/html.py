"""report.html: one file that needs nothing else, written from the report alone."""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pruning.report import plots, trust_plots, trust_words, words
from pruning.report.schema import Report

TEMPLATES = Path(__file__).parent / "templates"


def _visible(value: Any) -> Any:
    """Applied to every value that the template puts out."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return words.visible(value) if plain else value


def report_html(report: Report) -> str:
    """The page. Every name in it is escaped; it loads nothing and runs no script."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "share": words.share,
        "number": words.number,
        "count": words.count,
        "size": words.size,
        "clean": words.clean,
        "interval": words.interval,
    }
    missed = words.rejected(report)
    histograms = sum(
        bool(x.saliency_histogram and x.saliency_histogram.counts) for x in report.layers
    )
    return environment.get_template("report.html").render(
        report=report,
        style=Markup((TEMPLATES / "report.css").read_text()),
        missed=missed,
        verdict=words.verdict(report),
        prediction=words.prediction(report),
        matrix=words.matrix(report),
        times=words.times(report),
        reproduce=words.reproduce(report),
        spec_yaml=yaml.safe_dump(
            report.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True
        ),
        plots=plots,
        trust_plots=trust_plots,
        trust_words=trust_words,
        trust_layers=_trust_layers(report),
        histograms=histograms,
        metrics=[n for n, m in report.metrics.dense.items() if m.value is not None],
        gates=[c for c in report.checks if c.group == "gate"],
        assumptions=[c for c in report.checks if c.group == "trust"],
        verifications=[c for c in report.checks if c.group == "file"],
    )


def _trust_layers(report: Report) -> list[tuple[str, Any, Any, Any]]:
    """Each layer in scope with what is known of it: its ladder, its interval, its dead inputs."""
    trust = report.trust
    if trust is None:
        return []
    ladders = {x.name: x for x in trust.ladder.layers} if trust.ladder else {}
    intervals = {x.name: x for x in trust.bootstrap.layers} if trust.bootstrap else {}
    dead = {x.name: x for x in trust.dead_inputs}
    return [
        (x.name, ladders.get(x.name), intervals.get(x.name), dead.get(x.name))
        for x in report.layers
        if x.name in ladders or x.name in intervals or x.name in dead
    ]
