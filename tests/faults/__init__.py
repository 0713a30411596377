"""Faults as a suite: the real service, what befalls it, and what must hold afterwards.

`python -m tests.faults --help`, `make faults`, `make faults-soak`. One scenario a file under
`scenarios/`; `service` starts and disturbs, `invariants` says what holds after every one of them.
"""
