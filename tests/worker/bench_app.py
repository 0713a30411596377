"""`worker.app` with the tests' child in place of the real one."""

from bench import CHILDREN

from worker import station
from worker.app import app

__all__ = ["app"]
station.program = CHILDREN
