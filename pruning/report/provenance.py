"""How to run a job again."""

import shlex

from pruning.report.schema import Report


def reproduce(report: Report) -> str:
    """The command that runs the same job again from its manifest and compares the digests."""
    words = ["secateur", "reproduce", "--local", "manifest.json", "--model"]
    words.append(report.model.name or "MODEL")
    for role in ("calibration", "training", "evaluation"):
        part = getattr(report.data, role)
        if part.source == "given" and (role == "calibration" or part.name):
            flag = "--data" if role == "calibration" else f"--{role}"
            words += [flag, part.name or "DATA"]
    return " ".join(shlex.quote(w) for w in words)
