"""Fault tests use the worker's workbench."""

import sys
from pathlib import Path

_WORKBENCH = Path(__file__).parent.parent / "worker"
sys.path.insert(0, str(_WORKBENCH))
