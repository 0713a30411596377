"""The safetensors files of a folder, in one or in shards with their index. Torch-free."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pruning.errors import SecateurError
from pruning.formats.bundle import Bundle
from pruning.formats.huggingface.texts import read_object, shown
from pruning.formats.limits import Limits
from pruning.formats.safetensors import Arrays, Entry, Header, read_header

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_CONVERT = (
    'python -c "from transformers import AutoModel as M; '
    "M.from_pretrained('folder').save_pretrained('folder')\""
)
"""For a model with a head, its own Auto class in place of AutoModel."""


@dataclass(frozen=True)
class Shard:
    """One file: its name in the upload, where it lies, and what it holds."""

    name: str
    path: Path
    header: Header


class Shards(Mapping[str, np.ndarray]):
    """All tensors of all shards by name, read-only over the mapped files."""

    def __init__(self, shards: list[Shard]) -> None:
        self.shards = shards
        self._arrays = [Arrays(shard.path, shard.header) for shard in shards]
        self._of = {n: i for i, shard in enumerate(shards) for n in shard.header.entries}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[self._of[name]][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def entry(self, name: str) -> Entry:
        """Type, shape and place of a tensor."""
        return self.shards[self._of[name]].header.entries[name]


def weight_files(bundle: Bundle, limits: Limits) -> dict[str, set[str] | None]:
    """The files that hold weights, each with the tensors that the index puts there.

    Raises:
        SecateurError: `unsupported_format` for weights that are pickled, `model_invalid` for an
            index that does not fit the files.
    """
    stored = [n for n in bundle.names if n.endswith(".safetensors") and "/" not in n]
    if INDEX in bundle.names:
        planned = _index(bundle, limits)
    elif SINGLE in stored or len(stored) == 1:
        planned = {SINGLE if SINGLE in stored else stored[0]: None}
    else:
        planned = {}
    extra = sorted(set(stored) - planned.keys())
    if extra and planned:
        raise SecateurError(
            "model_invalid",
            f"{shown(extra[0])} belongs to no set of weights.",
            where=shown(extra[0]),
            hint="Upload one set of weights: one file, or the shards that the index names.",
        )
    if planned:
        return planned
    if extra:
        raise SecateurError(
            "model_invalid", f"{len(extra)} safetensors files have no index.", where=INDEX,
            hint=f"Upload {INDEX} with them.",
        )  # fmt: skip
    raise SecateurError(
        "unsupported_format",
        "The folder has no safetensors weights; pickled ones are never opened.",
        where=SINGLE,
        hint=f"Convert it: {_CONVERT} (with the Auto class of its head, where it has one).",
    )


def read_shards(
    bundle: Bundle, planned: Mapping[str, set[str] | None], scratch: Path, limits: Limits
) -> Shards:
    """The headers of all weight files, checked.

    Raises:
        SecateurError: As `read_header`; `model_too_large` for all files together, `model_invalid`
            for tensors that stand in another file than the index says.
    """
    shards, numbers, count = [], 0, 0
    for name, expected in planned.items():
        path = bundle.path(name, scratch)
        header = read_header(path, limits)
        count += len(header.entries)
        numbers += sum(int(np.prod(e.shape, dtype=object)) for e in header.entries.values())
        if numbers > limits.parameters or count > limits.stored_tensors:
            raise SecateurError(
                "model_too_large",
                f"The shards hold more than {limits.parameters} numbers or "
                f"{limits.stored_tensors} tensors.",
                where=name,
            )
        odd = set() if expected is None else expected ^ header.entries.keys()
        if odd:
            raise SecateurError(
                "model_invalid",
                f"{INDEX} and {name} disagree about {shown(min(odd))!r}.",
                where=shown(min(odd)),
                hint="Save the model again with save_pretrained.",
            )
        shards.append(Shard(name, path, header))
    return Shards(shards)


def _index(bundle: Bundle, limits: Limits) -> dict[str, set[str] | None]:
    places = read_object(bundle, INDEX, limits.text_bytes).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise SecateurError("model_invalid", f"{INDEX} has no weight_map.", where=INDEX)
    found: dict[str, set[str]] = {}
    for tensor, name in places.items():
        if not isinstance(name, str) or "/" in name or not name.endswith(".safetensors"):
            raise SecateurError(
                "model_invalid",
                f"{INDEX} puts {shown(tensor)!r} into {shown(str(name))!r}, which is no "
                "safetensors file beside it.",
                where=shown(tensor),
            )
        if name not in bundle.sizes:
            raise SecateurError(
                "model_invalid",
                f"{INDEX} names {shown(name)}, which is not there.",
                where=shown(name),
                hint="Upload every shard.",
            )
        found.setdefault(name, set()).add(tensor)
    return {name: found[name] for name in sorted(found)}
