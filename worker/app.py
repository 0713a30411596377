"""The Celery application `secateur`: `celery -A worker.app worker --pool prefork -Q secateur.cpu`.

A message is a doorbell and carries nothing that can't be lost or repeated, so it is acknowledged
early and no result is kept. Torch is never imported here.
"""

import sys
from typing import Any

from celery import Celery, signals
from kombu import Exchange, Queue

from pruning.errors import SecateurError
from store.settings import get_settings

CLASSES = ("check", "cpu", "gpu")


def queue_of(klass: str) -> str:
    """The queue that rings for a class of jobs."""
    return f"secateur.{klass}"


def _queue(klass: str) -> Queue:
    # An exchange and a key of its own: queues that share them all get every message.
    name = queue_of(klass)
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


app = Celery("secateur", broker=get_settings().redis_url, include=["worker.tasks"])
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    result_backend=None,
    task_ignore_result=True,
    task_acks_late=False,
    task_queues=[_queue(klass) for klass in CLASSES],
    task_default_queue=queue_of("cpu"),
    task_create_missing_queues=False,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_connection_retry=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_connection_timeout=2.0,
    broker_transport_options={
        "socket_connect_timeout": 2.0,
        "socket_timeout": 5.0,
        "socket_keepalive": True,
        "health_check_interval": 10,
    },
)


@signals.worker_init.connect
def _begin(sender: Any = None, **_: Any) -> None:
    from worker import station

    concurrency = getattr(sender, "concurrency", None)
    try:
        station.begin(get_settings(), concurrency if isinstance(concurrency, int) else 1)
    except SecateurError as error:
        # Celery logs an exception of a signal's receiver and starts all the same.
        print(f"secateur: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from error


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    from worker import station

    station.drain()


@signals.worker_shutdown.connect
def _end(**_: Any) -> None:
    from worker import station

    station.end()


@signals.worker_process_init.connect
def _begin_process(**_: Any) -> None:
    from worker import station

    served = set(app.amqp.queues.consume_from)
    station.begin_process(get_settings(), only_checks=served == {queue_of("check")})


@signals.worker_process_shutdown.connect
def _end_process(**_: Any) -> None:
    from worker import station

    station.end_process()
