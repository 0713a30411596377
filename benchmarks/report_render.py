"""How long report.html of a large network takes to write, and how large it is.

The report has every section and is made up (`report_example`): what is measured is the page.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import save, table
from benchmarks.report_example import example
from pruning.report.html import report_html
from pruning.report.schema import report_json

LAYERS, REPEATS = 100, 5
SECONDS, BYTES = 2.0, 3_000_000
"""What the page of `LAYERS` layers may take."""

COLD = """
import sys, time
from pathlib import Path
from pruning.report.schema import Report
report = Report.model_validate_json(Path(sys.argv[1]).read_bytes())
start = time.perf_counter()
from pruning.report.html import report_html
report_html(report)
print(time.perf_counter() - start)
"""
"""In a process of its own: with the imports of page and plots, and the templates' compilation."""


def run() -> bool:
    """Median of five, warm and cold, and the page's size."""
    found, rows = {}, []
    for layers in (10, LAYERS):
        report = example(layers)
        pages = [report_html(report)]
        warm = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            pages.append(report_html(report))
            warm.append(time.perf_counter() - start)
        assert len(set(pages)) == 1, "the page is not the same every time"
        cold = _cold(report_json(report))
        size = len(pages[0].encode())
        found[layers] = {
            "seconds": statistics.median(warm),
            "seconds_with_imports": statistics.median(cold),
            "bytes": size,
            "plots": pages[0].count("<svg"),
        }
        rows.append([layers, *found[layers].values()])
    table(rows, ["layers", "seconds", "with imports", "bytes", "plots"])
    save("report_render", {"layers": found})
    worst = found[LAYERS]
    kept = worst["seconds_with_imports"] < SECONDS and worst["bytes"] < BYTES
    print(f"under {SECONDS:g} s and {BYTES / 1e6:g} MB: {'yes' if kept else 'NO'}")
    return kept


def _cold(values: bytes) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        path.write_bytes(values)
        command = [sys.executable, "-c", COLD, str(path)]
        runs = (
            subprocess.run(command, capture_output=True, text=True, check=True)
            for _ in range(REPEATS)
        )
        return [float(done.stdout) for done in runs]
