"""How many threads torch uses while a module in memory is pruned."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pruning import threads


@contextmanager
def own_threads() -> Iterator[None]:
    """Inside, torch uses as many threads as SECATEUR_THREADS says, if it is set.

    Whoever calls the library may have set torch's number itself, so that nothing else counts.

    Raises:
        SecateurError: `usage` where it is no positive number.
    """
    before, own = torch.get_num_threads(), threads.own()
    torch.set_num_threads(own or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
