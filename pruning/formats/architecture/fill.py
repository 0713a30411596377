"""Numbers of a file into a module without any: by name, shape and type, ties kept tied."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.formats.architecture.arguments import DTYPES
from pruning.formats.architecture.build import CONSTANTS, Skeleton
from pruning.formats.architecture.module import tensor_at
from pruning.formats.architecture.schema import Architecture, Constant, invalid, shown

_COUNTER = "num_batches_tracked"
_PARALLEL = "module."


def fill(
    skeleton: Skeleton, architecture: Architecture, arrays: Mapping[str, np.ndarray], file: str
) -> dict[str, str]:
    """Gives the module its numbers.

    Args:
        skeleton: The module; halves become float32 in it.
        architecture: What is tied.
        arrays: The file's tensors; a tied one may be there once or several times.
        file: The file's name.

    Returns:
        The path of each parameter and buffer that the file holds, and its name there.

    Raises:
        SecateurError: `model_invalid` for tensors missing, unknown, or of another shape or type,
            `weights_non_finite` for a parameter.
    """
    module, expected = skeleton.module, set(skeleton.stored)
    names = _names(arrays, expected)
    _check_names(names, expected, file)
    groups = _groups(architecture, skeleton)
    shapes = {path: tuple(tensor_at(module, path).shape) for path in skeleton.stored}
    for path, constant in skeleton.inline.items():
        _put(module, path, _inline(constant))
    found = {}
    for path in skeleton.stored:
        group = groups.get(path, [path])
        first = next((member for member in group if member in names), None)
        if first is None:
            if path.rpartition(".")[2] != _COUNTER:
                raise _missing(path, file)
            _put(module, path, torch.zeros((), dtype=torch.int64))
            continue
        found[path] = name = names.get(path, names[first])
        array = arrays[name]
        _check_fit(module, path, name, array, shapes[path])
        if path == first:
            _put(module, path, _computed(array))
        elif path in names and not np.array_equal(array, arrays[names[first]], equal_nan=True):
            raise invalid(f"{shown(path)} and {shown(first)} are tied and differ", path)
    for group in {id(group): group for group in groups.values()}.values():
        first = next((member for member in group if member in names), group[0])
        for member in group:
            _put(module, member, tensor_at(module, first))
    return found


def computed(array: np.ndarray) -> np.ndarray:
    """A tensor of the file in the type that it is computed in: float32 for halves."""
    half = array.dtype.itemsize == 2 and array.dtype.kind not in "iub"
    return np.array(array, np.float32 if half else array.dtype, order="C")


def _computed(array: np.ndarray) -> Tensor:
    return torch.from_numpy(computed(array))


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


def _check_fit(
    module: nn.Module, path: str, name: str, array: np.ndarray, shape: tuple[int, ...]
) -> None:  # fmt: skip
    if tuple(array.shape) != shape:
        raise invalid(
            f"{shown(name)!r} has shape {list(array.shape)} and not {list(shape)}",
            name,
            "Export the architecture and the weights from the same module.",
        )
    wanted = tensor_at(module, path)
    floating = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    if floating != wanted.is_floating_point():
        raise invalid(f"{shown(name)!r} is of type {array.dtype.name}", name)
    buffer = not isinstance(wanted, nn.Parameter)
    if buffer:
        return
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
