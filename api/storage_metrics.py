"""Prometheus metrics of stored files: what was found damaged, and how far the scrub is."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from store.blobs import Blobs
from store.scrub import RESULTS, Progress


class StorageMetrics(Collector):
    """Read when scraped.

    Args:
        blobs: The stored files.
        progress: Where the scrub keeps how far it is.
    """

    def __init__(self, blobs: Blobs, progress: Path) -> None:
        self.blobs, self.progress = blobs, progress

    def collect(self) -> Iterator[Metric]:
        """The files in quarantine, and what the scrub has read in all."""
        aside = self.blobs.quarantined()
        yield GaugeMetricFamily(
            "secateur_quarantined_files",
            "Stored files that were found damaged and are kept aside.",
            value=len(aside),
        )
        yield GaugeMetricFamily(
            "secateur_quarantined_bytes", "Their size.", value=sum(found.bytes for found in aside)
        )
        read = Progress.read(self.progress)
        files = CounterMetricFamily(
            "secateur_scrub_files", "Stored files that the scrub has read.", labels=("result",)
        )
        for result in RESULTS:
            files.add_metric((result,), read.files.get(result, 0))
        yield files
        yield CounterMetricFamily(
            "secateur_scrub_bytes", "Bytes that the scrub has read.", value=read.bytes
        )
        if read.finished_at:
            yield GaugeMetricFamily(
                "secateur_scrub_finished_timestamp_seconds",
                "When the scrub last came through all stored files.",
                value=datetime.fromisoformat(read.finished_at).timestamp(),
            )
