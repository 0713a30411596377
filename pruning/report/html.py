"""report.html: one file that needs nothing else, written from the report alone."""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pruning.report import plots, words
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
        reproduce=words.reproduce(report),
        spec_yaml=yaml.safe_dump(
            report.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True
        ),
        plots=plots,
        histograms=histograms,
        metrics=[n for n, m in report.metrics.dense.items() if m.value is not None],
        gates=[c for c in report.checks if words.is_gate(c.name)],
        verifications=[c for c in report.checks if not words.is_gate(c.name)],
    )
