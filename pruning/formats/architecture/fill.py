"""Numbers of a file into a module without any: by name, shape and type, ties kept tied."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.architecture.arguments import DTYPES
from pruning.formats.architecture.build import CONSTANTS, Skeleton
from pruning.formats.architecture.module import tensor_at
from pruning.formats.architecture.schema import Architecture, Constant, invalid, shown
from pruning.formats.limits import Limits
from pruning.formats.safetensors import Arrays, read_header
from pruning.formats.state_dict import read_state_dict

_COUNTER = "num_batches_tracked"
_PARALLEL = "module."


@dataclass(frozen=True)
class Match:
    """Which tensor of the file goes where.

    Attributes:
        names: The path of each parameter and buffer that the file holds, and its name there.
        groups: Each tied path's group.
        first: For each path the one of its group whose numbers count; None without any.
    """

    names: dict[str, str]
    groups: dict[str, list[str]]
    first: dict[str, str | None]


def match(
    skeleton: Skeleton, architecture: Architecture, arrays: Mapping[str, np.ndarray], file: str
) -> Match:
    """Compares names, shapes and types, and gives the module's tensors those they will have.

    Args:
        skeleton: The module without numbers.
        architecture: What is tied.
        arrays: The file's tensors; a tied one may be there once or several times.
        file: The file's name.

    Raises:
        SecateurError: `model_invalid` for tensors missing, unknown, or of another shape or type.
    """
    expected = set(skeleton.stored)
    held = _names(arrays, expected)
    _check_names(held, expected, file)
    groups = _groups(architecture, skeleton)
    names: dict[str, str] = {}
    firsts: dict[str, str | None] = {}
    for path in skeleton.stored:
        first = next((member for member in groups.get(path, [path]) if member in held), None)
        firsts[path] = first
        if first is not None:
            names[path] = held.get(path, held[first])
            dtype = _check_fit(skeleton.module, path, names[path], arrays[names[path]])
            bare = torch.empty_like(tensor_at(skeleton.module, path), dtype=dtype)
            _put(skeleton.module, path, bare)
        elif path.rpartition(".")[2] != _COUNTER:
            raise _missing(path, file)
    return Match(names, groups, firsts)


def fill(skeleton: Skeleton, found: Match, arrays: Mapping[str, np.ndarray]) -> None:
    """Gives the module its numbers; halves become float32.

    Raises:
        SecateurError: `model_invalid` for tied tensors that differ, `weights_non_finite` for a
            parameter.
    """
    module = skeleton.module
    for path, constant in skeleton.inline.items():
        _put(module, path, _inline(constant))
    for path, first in found.first.items():
        if first is None:
            _put(module, path, torch.zeros((), dtype=torch.int64))
            continue
        array = arrays[found.names[path]]
        if path == first:
            if isinstance(tensor_at(module, path), nn.Parameter):
                _check_finite(found.names[path], array)
            _put(module, path, torch.from_numpy(computed(array)))
        elif not np.array_equal(array, arrays[found.names[first]]):
            raise invalid(f"{shown(path)} and {shown(first)} are tied and differ", path)
    for path, first in found.first.items():
        if first is not None and first != path:
            _put(module, path, tensor_at(module, first))


def loaded(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or a state dict; halves as float32, DataParallel's prefix gone.

    Raises:
        SecateurError: What the file's reader refuses.
    """
    limits = Limits(parameters=2**40, text_bytes=2**30)
    if path.suffix == ".safetensors":
        arrays: Mapping[str, np.ndarray] = Arrays(path, read_header(path, limits))
    else:
        state = read_state_dict(path, limits)
        arrays = {name: state.array(name) for name in state.tensors}
    names = _names(arrays, set())
    return {bare: torch.from_numpy(computed(arrays[name])) for bare, name in names.items()}


def computed(array: np.ndarray) -> np.ndarray:
    """A tensor of the file in the type that it is computed in: float32 for halves."""
    half = array.dtype.itemsize == 2 and array.dtype.kind not in "iub"
    return np.array(array, np.float32 if half else array.dtype, order="C")


def _names(arrays: Mapping[str, np.ndarray], expected: set[str]) -> dict[str, str]:
    """Paths to names of the file, of which DataParallel writes each with a prefix."""
    parallel = all(name.startswith(_PARALLEL) for name in arrays) and not any(
        path.startswith(_PARALLEL) for path in expected
    )
    return {name.removeprefix(_PARALLEL) if parallel else name: name for name in arrays}


def _groups(architecture: Architecture, skeleton: Skeleton) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for group in architecture.ties:
        for member in group:
            if member in groups or member not in skeleton.stored:
                raise invalid(f"ties name {shown(member)!r}, which is no tensor or tied twice",
                              "ties")  # fmt: skip
            groups[member] = group
        shapes = {tuple(tensor_at(skeleton.module, member).shape) for member in group}
        if len(shapes) != 1:
            raise invalid(f"{shown(group[0])} is tied to a tensor of another shape", "ties")
    return groups


def _check_names(names: Mapping[str, str], expected: set[str], file: str) -> None:
    extra = [name for name in names if name not in expected]
    if extra:
        raise invalid(
            f"{file} holds {', '.join(map(shown, extra[:8]))}, which the network has not",
            extra[0],
            "Export the architecture and the weights from the same module.",
        )


def _missing(path: str, file: str) -> SecateurError:
    hint = "Export the architecture and the weights from the same module."
    if path.startswith(f"{CONSTANTS}."):
        hint = "Large constants lie in the model.safetensors that `secateur export` wrote."
    return invalid(f"{file} lacks {shown(path)!r}", path, hint)


def _check_fit(module: nn.Module, path: str, name: str, array: np.ndarray) -> torch.dtype:
    """The type that the tensor is computed in."""
    wanted = tensor_at(module, path)
    if array.shape != tuple(wanted.shape):
        raise invalid(
            f"{shown(name)!r} has shape {list(array.shape)} and not {list(wanted.shape)}",
            name,
            "Export the architecture and the weights from the same module.",
        )
    dtype = torch.from_numpy(computed(np.empty(0, array.dtype))).dtype
    if dtype.is_floating_point != wanted.is_floating_point():
        raise invalid(f"{shown(name)!r} is of type {array.dtype.name}", name)
    return dtype


def _check_finite(name: str, array: np.ndarray) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        raise SecateurError(
            "weights_non_finite",
            f"{shown(name)!r} has {int((~finite).sum())} values that are NaN or infinite.",
            where=shown(name),
        )


def _put(module: nn.Module, path: str, value: Tensor) -> None:
    owner, _, leaf = path.rpartition(".")
    holder = module.get_submodule(owner)
    if leaf in holder._parameters and not isinstance(value, nn.Parameter):
        value = nn.Parameter(value)
    # Recurrent layers keep a list of their weights, which only setattr brings up to date.
    setattr(holder, leaf, value)


def _inline(constant: Constant) -> Tensor:
    values = [float(v) if isinstance(v, str) else v for v in constant.values or ()]
    return torch.tensor(values, dtype=DTYPES[constant.dtype]).reshape(constant.shape)
