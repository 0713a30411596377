"""Parameters and the tensors that hold them in the files, there and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pruning.errors import SecateurError
from pruning.formats.huggingface.build import place
from pruning.formats.huggingface.config import Plan
from pruning.formats.huggingface.names import assign, missing
from pruning.formats.huggingface.shards import Shards
from pruning.formats.huggingface.texts import shown

TYPES = ("float32", "float16", "bfloat16")
"""Types of parameters that are read; the network computes in float32 whatever the file holds."""


@dataclass(frozen=True)
class Bound:
    """One parameter.

    Attributes:
        paths: Its paths in the module, several where it is tied.
        names: The files' tensors that hold it, the first one's values being those that count.
        turned: Whether the tensors are its transpose.
    """

    paths: list[str]
    names: list[str]
    turned: bool


def bind(module: nn.Module, shards: Shards, plan: Plan, turned: frozenset[str]) -> list[Bound]:
    """Finds each parameter's tensors and compares shapes and types, from the headers alone.

    Args:
        module: As the library builds it, so that shapes are those of the files.
        shards: The files.
        plan: The network.
        turned: Paths of parameters that will be transposed.

    Raises:
        SecateurError: `model_invalid` with the tensor in `where`.
    """
    groups: dict[int, list[str]] = {}
    shapes: dict[int, tuple[int, ...]] = {}
    for path, parameter in module.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(path)
        shapes[id(parameter)] = tuple(parameter.shape)
    known = {path for paths in groups.values() for path in paths}
    by_path = {path: name for name, path in assign(known, shards, plan).items()}
    lacking = [paths[0] for paths in groups.values() if not by_path.keys() & set(paths)]
    if lacking:
        raise missing(lacking, plan)
    bounds = []
    for key, paths in groups.items():
        names = [by_path[path] for path in paths if path in by_path]
        for name in names:
            _compare(name, shapes[key], shards)
        bounds.append(Bound(paths, names, paths[0] in turned))
    return bounds


def load(module: nn.Module, bounds: Sequence[Bound], shards: Shards) -> None:
    """Gives every parameter its values, as float32 and tied ones once.

    Raises:
        SecateurError: `weights_non_finite`, or `model_invalid` for tied tensors that differ.
    """
    for bound in bounds:
        name = bound.names[0]
        for other in bound.names[1:]:
            if not np.array_equal(_bits(shards[name]), _bits(shards[other])):
                raise SecateurError(
                    "model_invalid",
                    f"{shown(name)} and {shown(other)} are tied and have different values.",
                    where=shown(other),
                    hint="Set tie_word_embeddings to false in config.json if they are two.",
                )
        value = torch.from_numpy(_imported(shards[name], bound.turned))
        if not bool(torch.isfinite(value).all()):
            raise SecateurError(
                "weights_non_finite",
                f"The tensor {shown(name)!r} holds NaN or infinity.",
                where=shown(name),
                hint="Train or export the model again; a diverged run leaves such values.",
            )
        place(module, bound.paths, value)


def changed(
    module: nn.Module, bounds: Sequence[Bound], tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The tensors of the files whose parameter is no longer as it was read, in their own types.

    Elements that are bit for bit as read keep the file's bits; zeros are written as +0.

    Raises:
        SecateurError: `weights_non_finite` where a file's type can't hold a value.
    """
    found = {}
    for bound in bounds:
        parameter = module.get_parameter(bound.paths[0]).detach().cpu().float().numpy()
        original = tensors[bound.names[0]]
        imported = _imported(original, bound.turned)
        where = _bits(parameter) != _bits(imported)
        if not where.any():
            continue
        with np.errstate(over="ignore"):
            value = np.where(parameter == 0, np.float32(0), parameter).astype(original.dtype)
        if bound.turned:
            value, where = value.T, where.T
        if not np.isfinite(value[where].astype(np.float32)).all():
            raise SecateurError(
                "weights_non_finite",
                f"A value is not finite or too large for {original.dtype.name}.",
                where=shown(bound.names[0]),
            )
        result = np.ascontiguousarray(np.where(where, value, original))
        found.update(dict.fromkeys(bound.names, result))
    return found


def _imported(tensor: np.ndarray, turned: bool) -> np.ndarray:
    """A parameter's values for a tensor of the file; a new array."""
    return np.array(tensor.T if turned else tensor, dtype=np.float32, order="C")


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def _compare(name: str, shape: tuple[int, ...], shards: Shards) -> None:
    entry = shards.entry(name)
    if entry.shape != shape:
        raise SecateurError(
            "model_invalid",
            f"{shown(name)!r} has shape {list(entry.shape)}; config.json asks for {list(shape)}.",
            where=shown(name),
            hint="Upload the config.json that was saved with these weights.",
        )
    if entry.dtype.name not in TYPES:
        raise SecateurError(
            "model_invalid",
            f"{shown(name)!r} has type {entry.dtype.name}.",
            where=shown(name),
            hint=f"Types of weights read here: {', '.join(TYPES)}.",
        )
