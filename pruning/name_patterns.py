"""Shell patterns over names of layers. Torch-free."""

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from functools import cached_property, lru_cache

Matches = Callable[[str], object]
_SPECIAL = re.compile(r"[*?\[]")


class NamePatterns:
    """Several patterns at once: a name is held to all in one search.

    None is compiled before it is used.

    Args:
        patterns: As `fnmatch.fnmatchcase` takes them.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._names = frozenset(p for p in self.patterns if not _SPECIAL.search(p))

    @property
    def wildcards(self) -> int:
        """Wildcards of all patterns, and one for each that has any: what compiling them takes."""
        return sum(1 + len(_SPECIAL.findall(p)) for p in self.patterns if p not in self._names)

    def steps(self, names: Iterable[str]) -> int:
        """What comparing them with names may take: wildcards times characters."""
        return self.wildcards * sum(map(len, names))

    @cached_property
    def _wild(self) -> Matches | None:
        wild = [translate(p) for p in self.patterns if p not in self._names]
        return re.compile("|".join(wild)).match if wild else None

    def match(self, names: Iterable[str]) -> bool:
        """Whether one of the patterns matches one of the names."""
        return any(
            name in self._names or (self._wild is not None and self._wild(name)) for name in names
        )

    def first_unmatched(self, names: Sequence[str]) -> str | None:
        """The first pattern that matches none of the names."""
        present = frozenset(names)
        for pattern in self.patterns:
            if pattern in self._names:
                found = pattern in present
            else:
                found = any(map(_compiled(pattern), names))
            if not found:
                return pattern
        return None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Matches:
    return re.compile(translate(pattern)).match
