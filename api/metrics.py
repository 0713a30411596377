"""Prometheus metrics: requests as they pass, jobs as the store has them when it is asked."""

import threading
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from starlette.types import Scope

from api.http.connections import Connections
from store.db import Database
from store.queries import jobs
from store.tables import Job

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_PART = 20


class RequestMetrics:
    """Counts and times requests by route template, so that ids never become label values."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "secateur_http_requests_total",
            "Requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "secateur_http_request_seconds",
            "Time from the request's headers to the end of the answer.",
            ("method", "route"),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
            registry=registry,
        )

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Records one finished request; `status` 0 stands for a client that went away."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "unmatched")
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(method, route).observe(seconds)


class ConnectionMetrics(Collector):
    """Connections there are, and why others were ended."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections

    def collect(self) -> Iterator[Metric]:
        """The counts of this moment."""
        open_now = GaugeMetricFamily(
            "secateur_http_connections",
            "Connections by whether a request on them came with a key, or over the limit.",
            labels=("kind",),
        )
        for kind, count in self.connections.counts().items():
            open_now.add_metric((kind,), count)
        yield open_now
        ended = CounterMetricFamily(
            "secateur_http_connections_ended",
            "Connections that the service ended, by what was too slow or too much.",
            labels=("reason",),
        )
        for reason, count in self.connections.ended.items():
            ended.add_metric((reason,), count)
        yield ended


class JobMetrics(Collector):
    """Jobs by class and state, and the age of the oldest queued one, read when scraped.

    Counting looks at every job there is, and anybody may ask: what was counted is given out for
    twenty times as long as counting took, and nobody waits for somebody else's count.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._lock = threading.Lock()
        self._counted: list[Metric] | None = None
        self._until = 0.0

    def collect(self) -> Iterator[Metric]:
        """What was counted last, counted again if that is some time ago."""
        if self._lock.acquire(blocking=self._counted is None):
            try:
                if self._counted is None or time.monotonic() >= self._until:
                    since = time.monotonic()
                    self._counted = list(self._count())
                    now = time.monotonic()
                    self._until = now + _PART * (now - since)
            finally:
                self._lock.release()
        yield from self._counted or ()

    def _count(self) -> Iterator[Metric]:
        with self.database.read() as session:
            counts = jobs.counts(session)
            oldest = session.execute(
                select(Job.klass, func.min(Job.queued_at))
                .where(Job.state == "queued")
                .group_by(Job.klass)
            ).all()
        by_state = GaugeMetricFamily(
            "secateur_jobs",
            "Jobs by state; intake checks are the class check.",
            labels=("class", "state"),
        )
        for labels, count in counts.items():
            by_state.add_metric(labels, count)
        yield by_state
        age = GaugeMetricFamily(
            "secateur_oldest_queued_job_seconds",
            "Age of the oldest job that waits, by worker class.",
            labels=("class",),
        )
        for klass, since in oldest:
            age.add_metric((klass,), max(0.0, time.time() - since.timestamp()))
        yield age
