"""The workbench, with and without a broker."""

from bench_fixtures import bench, migrated, service, valkey

__all__ = ["bench", "migrated", "service", "valkey"]
