"""How many threads a job gets, where the settings don't say: its worker's share of the cores.

Pool processes of one service know how many they are. Of other services on the machine they know
those that use the same slots folder, by the locks on their houses: processors that several may use
are divided among them.
"""

from collections import Counter
from pathlib import Path

from pruning import threads
from worker.slots import occupants


def share(slots: Path, processes: int) -> int:
    """Threads of the next job, at least one.

    Args:
        slots: The slots folder.
        processes: How many processes this one's service has, which share its quota.
    """
    asked = threads.asked()
    if asked is not None:
        return asked
    users = Counter(cpu for o in occupants(slots) for cpu in o.cpus)
    own = sum(1 / max(1, users[cpu]) for cpu in threads.cpus())
    # 1/3 + 1/3 + 1/3 is a whole processor.
    return max(1, min(threads.share(processes), int(own + 1e-9)))
