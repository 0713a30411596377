"""One scenario a file: `SHORT` and `LONG` rounds, and `run(stage)`."""
