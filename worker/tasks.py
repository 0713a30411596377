"""The one task: a doorbell."""

from store.settings import get_settings
from worker import station
from worker.answer import answer
from worker.app import app


@app.task(name="secateur.doorbell", ignore_result=True)
def doorbell(klass: str, job_id: str | None = None) -> None:
    """Run whatever waits in a class; `job_id` is a hint, the store decides what is next."""
    answer(station.place(get_settings()), klass)
