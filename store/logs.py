"""Logging of every process of the service: one line an event on stderr."""

import logging

from store.settings import Settings


def configure(settings: Settings) -> None:
    """Log from `settings.log_level` on; without effect where logging is set up already."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Alembic reports its plugins at INFO every time it is loaded.
    logging.getLogger("alembic").setLevel(logging.WARNING)
