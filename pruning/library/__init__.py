"""The library's door: what a caller's module and data become before the loop sees them.

A module in memory can be far more than layers and weights: wrapped, compiled, patched, copied with
functions that still hold the original, tied by memory, in half precision. Each is made right, and
said in the report, or refused with a code. `admission` puts the parts together.
"""
