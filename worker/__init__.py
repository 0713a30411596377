"""The run path: Celery app, supervisor, the child that runs one attempt, relay and reaper."""
