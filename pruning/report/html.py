"""report.html: one file that needs nothing else, written from the report alone."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pruning.report import (
    layer_plots,
    plots,
    provenance,
    scope_words,
    study_plots,
    study_words,
    trust_plots,
    trust_words,
    verdict,
    words,
)
from pruning.report.doubts import doubts
from pruning.report.schema import Report

TEMPLATES = Path(__file__).parent / "templates"

MAX_LISTED = 10
"""Rows of a table by layer that stand open; longer ones fold."""


def _visible(value: Any) -> Any:
    """Applied to every value that the template puts out."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return words.unbroken(words.visible(value)) if plain else value


@cache
def environment() -> Environment:
    """What the templates are compiled in, each once in a process."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "share": words.share,
        "asked": words.asked,
        "number": words.number,
        "count": words.count,
        "size": words.size,
        "seconds": words.seconds,
        "clean": words.clean,
        "title_of": words.title,
    }
    found.globals |= {
        "layer_plots": layer_plots,
        "plots": plots,
        "study_plots": study_plots,
        "study_words": study_words,
        "trust_plots": trust_plots,
        "trust_words": trust_words,
        "words": words,
        "MAX_LISTED": MAX_LISTED,
    }
    return found


def report_html(report: Report) -> str:
    """The page. Every name in it is escaped; it loads nothing and runs no script."""
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            style=Markup((TEMPLATES / "report.css").read_text()),
            missed=verdict.rejected(report),
            verdict=verdict.verdict(report),
            outcome=verdict.outcome(report),
            beside=verdict.beside(report),
            facts=verdict.facts(report),
            left_out=scope_words.left_out(report.scope),
            prediction=trust_words.prediction(report),
            matrix=trust_words.matrix(report),
            doubts=doubts(report),
            reproduce=provenance.reproduce(report),
            spec_yaml=yaml.safe_dump(
                report.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True
            ),
            trust_layers=_trust_layers(report),
            histograms=len(layer_plots.with_histogram(report)),
            metrics=[n for n, m in report.metrics.dense.items() if m.value is not None],
            gates=words.gates(report),
            assumptions=[c for c in report.checks if c.group == "trust"],
            verifications=[
                c for c in report.checks if c.group == "file" and not words.is_gate(c.name)
            ],
        )
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
