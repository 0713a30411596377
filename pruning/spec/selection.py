"""Which weights may go."""

from typing import Literal

from pruning.spec.part import Part


class Scope(Part):
    """Which weights may go. `exclude` holds shell patterns matched against layer names."""

    exclude: tuple[str, ...] = ()
    biases: Literal[False] = False
    embeddings: Literal[False] = False
    output_head: bool = True
