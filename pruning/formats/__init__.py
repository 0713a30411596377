"""Bytes to modules and back, one format a file or folder, each with its own safe reader."""
