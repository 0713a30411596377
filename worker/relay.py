"""The relay: takes messages from the outbox to the broker, and rings again for jobs that wait.

The broker may lose or repeat a doorbell; rows are deleted only after the send, and a class whose
jobs wait too long is rung for again, never with more bells in its queue than jobs that wait.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from celery import Celery
from kombu import Connection, Queue
from kombu.exceptions import OperationalError

from store import outbox
from store.clock import utcnow
from store.db import Database
from store.settings import Settings
from worker.app import queue_of

log = logging.getLogger(__name__)

_BATCH = 100
_MOST_BELLS = 100  # rung again for a class: who hears one goes on until no job is left
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
# What a broker that is away, restarting or refusing us raises, depending on when it is noticed.
BROKER_ERRORS = (OperationalError, ConnectionError, TimeoutError, OSError)


class Relay:
    """One relay over one broker connection.

    Args:
        db: Where the outbox is.
        app: The Celery application whose broker is rung.
        settings: `ring_again_seconds`.
        leads: Asked before every send: False stops at once.
    """

    def __init__(
        self, db: Database, app: Celery, settings: Settings, leads: Callable[[], bool]
    ) -> None:
        self._db = db
        self._app = app
        self._again = settings.ring_again_seconds
        self._leads = leads
        self._connection: Connection | None = None
        self._pause = 0.0
        self._not_before = 0.0
        self._rung_again = time.monotonic()

    def turn(self) -> int:
        """Send what is due; does nothing while it waits for a broker that is away.

        Returns:
            How many messages left.
        """
        if time.monotonic() < self._not_before:
            return 0
        try:
            sent = self._send_due()
            if time.monotonic() - self._rung_again >= self._again / 3:
                self._rung_again = time.monotonic()
                sent += self._ring_again()
        except BROKER_ERRORS as error:
            self._back_off(error)
            return 0
        except self._broker_errors() as error:
            self._back_off(error)
            return 0
        if sent and self._pause:
            log.info("the broker answers again")
            self._pause = 0.0
        return sent

    def _broker_errors(self) -> tuple[type[BaseException], ...]:
        connection = self._connection
        if connection is None:
            return ()
        return (*connection.connection_errors, *connection.channel_errors)

    def _back_off(self, error: BaseException) -> None:
        if not self._pause:
            log.warning("the broker does not take messages, they wait in the outbox: %s", error)
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
        self._not_before = time.monotonic() + self._pause
        self.close()

    def _send_due(self) -> int:
        with self._db.read() as session:
            rows = [(r.id, r.topic, dict(r.payload)) for r in outbox.due(session, _BATCH)]
        sent: list[int] = []
        try:
            for row_id, topic, payload in rows:
                if not self._leads():
                    break
                if topic == outbox.DOORBELL:
                    self._ring(payload["klass"], payload.get("job_id"))
                else:
                    log.error("outbox row %d has the unknown topic %r", row_id, topic)
                sent.append(row_id)
        finally:
            if sent:
                with self._db.write(durable=False) as session:
                    outbox.mark_sent(session, sent)
        return len(sent)

    def _ring_again(self) -> int:
        with self._db.read() as session:
            waiting = outbox.waiting(session, utcnow(), timedelta(seconds=self._again))
        rung = 0
        for klass, jobs in waiting.items():
            for _ in range(min(jobs, _MOST_BELLS) - self._bells(klass)):
                if not self._leads():
                    return rung
                self._ring(klass, None)
                rung += 1
        return rung

    def _ring(self, klass: str, job_id: str | None) -> None:
        self._app.send_task(
            "secateur.doorbell",
            kwargs={"klass": klass, "job_id": job_id},
            queue=queue_of(klass),
            connection=self._open(),
            retry=False,
            ignore_result=True,
        )

    def _bells(self, klass: str) -> int:
        """Doorbells that lie in a class's queue unheard."""
        connection = self._open()
        channel = connection.default_channel
        bound = Queue(queue_of(klass), channel=channel)
        try:
            return int(bound.queue_declare(passive=True).message_count)
        except connection.channel_errors:
            return 0  # the queue does not exist while it is empty

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        return self._connection

    def close(self) -> None:
        """Drop the connection; the next message opens a new one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.release()
        except BROKER_ERRORS:
            return
