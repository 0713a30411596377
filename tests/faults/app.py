"""`worker.app` with the suite's quick child in place of the real one."""

import sys
from pathlib import Path

from worker import station
from worker.app import app

__all__ = ["app"]
station.program = (sys.executable, "-S", "-E", str(Path(__file__).with_name("child.py")))
