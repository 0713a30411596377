"""Fault tests use the worker's workbench."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "worker"))

from bench_fixtures import bench, migrated, service, valkey

__all__ = ["bench", "migrated", "service", "valkey"]
