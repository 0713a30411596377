"""Datasets to batches."""
