"""A .pt2 file as a whole: what its checked parts are, and a fresh archive made from these alone."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pruning.errors import SecateurError
from pruning.formats.limits import Limits
from pruning.formats.pt2 import archive
from pruning.formats.pt2.payloads import Stored, read_config
from pruning.formats.pt2.sanitise import DOCUMENT, Program, on_cpu, rebuilt
from pruning.formats.pt2.schema import MOST_BYTES, parse, refuse

WEIGHTS = "data/weights"
CONSTANTS = "data/constants"
_EXTRA_BYTES = 4 * 1024 * 1024  # of all together


class Package:
    """The checked parts of an uploaded file.

    Attributes:
        program: The graph.
        stored: Every tensor by its name.
        skeleton: All but the tensors' numbers.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._archive = archive.Archive(path, limits)
        self._check_versions()
        self._extra: dict[str, bytes] = {}
        left = _EXTRA_BYTES
        for name in sorted(self._archive.members):
            if name.startswith("extra/"):
                self._extra[name] = self._archive.read(name, left)
                left -= len(self._extra[name])
        sizes = {name: member.size for name, member in self._archive.members.items()}
        self.program: Program = rebuilt(self._json(DOCUMENT), limits)
        self._configs: dict[str, Any] = {}
        self.stored: dict[str, Stored] = {}
        for folder in (WEIGHTS, CONSTANTS):
            name = f"{folder}/model_{folder.rpartition('/')[2]}_config.json"
            self._configs[name], found = read_config(self._json(name), name, folder, sizes, limits)
            if twice := self.stored.keys() & found.keys():
                raise refuse(f"The tensor {min(twice)} is stored twice", name)
            self.stored.update(found)
        for name, kind in self.program.tensors.items():
            if name not in self.stored:
                raise refuse(f"The tensor {name} is not stored", DOCUMENT)
            if (kind == "parameter_name") != self.stored[name].parameter:
                raise refuse(f"{name} is a parameter in one place and none in another", DOCUMENT)

    @property
    def skeleton(self) -> object:
        """The checked documents."""
        return self.program.document, self._configs, self._extra

    def write(
        self, path: Path, plain: bool, payload: Callable[[str, bytes], bytes] | None = None
    ) -> None:
        """Writes a fresh archive.

        Args:
            path: Where to.
            plain: Whether for loading here: on the CPU, without what only the owner needs.
            payload: Gives a member's new bytes from its name and its old ones.
        """
        archive.write(path, self._members(plain, payload or (lambda _, data: data)))

    def members(self) -> list[str]:
        """The members that hold tensors."""
        return sorted({stored.member for stored in self.stored.values()})

    def read(self, member: str) -> bytes:
        """A member's bytes as uploaded."""
        return self._archive.read(member)

    def tensor(self, name: str) -> np.ndarray:
        """A tensor as it stands in the file, in its own type."""
        stored = self.stored[name]
        return stored.view(self.read(stored.member)).copy()

    def check_finite(self, names: set[str]) -> None:
        """Refuses parameters with numbers that are none.

        Raises:
            SecateurError: `weights_non_finite` with the tensor's name.
        """
        for member in self.members():
            data = self.read(member)
            for name in sorted(names):
                stored = self.stored[name]
                if stored.member == member and not np.isfinite(stored.view(data)).all():
                    raise SecateurError(
                        "weights_non_finite",
                        f"The parameter {name} holds NaN or infinity.",
                        where=name,
                        hint="Repair the weights and export again.",
                    )

    def _members(
        self, plain: bool, payload: Callable[[str, bytes], bytes]
    ) -> Iterator[tuple[str, bytes]]:
        yield "archive_format", b"pt2"
        yield "archive_version", b"0"
        yield "byteorder", b"little"
        yield ".data/version", b"6\n"
        for member in self.members():
            yield member, payload(member, self.read(member))
        for name, config in self._configs.items():
            yield name, _json_bytes(on_cpu(config) if plain else config)
        yield DOCUMENT, _json_bytes(self.program.plain if plain else self.program.document)
        # torch asks for this member; with no bytes it holds no samples and is not unpickled.
        yield "data/sample_inputs/model.pt", b""
        if not plain:
            yield from self._extra.items()

    def _json(self, name: str) -> Any:
        return parse(self._archive.read(name, MOST_BYTES), name)

    def _check_versions(self) -> None:
        expected = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
        for name, value in expected.items():
            if name == "byteorder" and name not in self._archive.members:
                continue
            found = self._archive.read(name, 100)
            if found.strip() != value:
                raise SecateurError(
                    "unsupported_format",
                    f"{name} is {found[:20]!r}; {value.decode()} is read.",
                    where=name,
                    hint=archive.HINT,
                )


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
