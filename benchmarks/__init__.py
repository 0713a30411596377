"""Side-by-side measurements, each a command: `python -m benchmarks [name ...]`.

Results go to `benchmarks/results/<name>.json` with the machine and versions they were measured on.
"""
