"""How to run a job again."""

import shlex

from pruning.report.schema import Report
from pruning.schedule.earlier import goes_back


def reproduce(report: Report) -> str:
    """What runs the same job again: a command for files, a call for a torch module."""
    if report.model.format == "module":
        return "pruning.prune(module, data, spec)"
    words = ["secateur", "reproduce", "--local", "manifest.json", "--model"]
    words.append(report.model.name or "MODEL")
    for role in ("calibration", "training", "evaluation"):
        part = getattr(report.data, role)
        if part.source == "given" and (role == "calibration" or part.name):
            flag = "--data" if role == "calibration" else f"--{role}"
            words += [flag, part.name or "DATA"]
    if goes_back(report.spec):
        words += ["--rewind-to", "EARLIER"]
    return " ".join(shlex.quote(w) for w in words)
