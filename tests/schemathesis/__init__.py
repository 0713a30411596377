"""Schemathesis over the whole document: `make schemathesis`, and short in tests/api."""
