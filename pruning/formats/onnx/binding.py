"""How a parameter of the module stands for a tensor of the file, there and back."""

from dataclasses import dataclass

import numpy as np

from pruning.errors import SecateurError


@dataclass(frozen=True)
class Layout:
    """parameter = scale * tensor.transpose(permutation).reshape(shape), in the module's dtype."""

    permutation: tuple[int, ...]
    shape: tuple[int, ...]
    scale: float = 1.0


@dataclass(frozen=True)
class Binding:
    """One tensor of the file and the parameter or buffer that holds it.

    `path` is the first place in the module; further layers with the same weight share the object.
    """

    path: str
    source: str
    layout: Layout


def computing_dtype(dtype: np.dtype) -> np.dtype:
    """What a tensor of this type is computed in: float16 in float32, others as they are."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def to_parameter(tensor: np.ndarray, layout: Layout) -> np.ndarray:
    """The parameter's value for a tensor of the file; a new array."""
    dtype = computing_dtype(tensor.dtype)
    value = tensor.astype(dtype).transpose(layout.permutation).reshape(layout.shape)
    if layout.scale != 1.0:
        with np.errstate(over="ignore"):
            value = value * dtype.type(layout.scale)
    return np.array(value, dtype=dtype, order="C")


def to_tensor(parameter: np.ndarray, original: np.ndarray, layout: Layout) -> np.ndarray | None:
    """The file's tensor for a parameter, or None where nothing has changed.

    Elements whose parameter is bit for bit as imported keep the file's bits, whatever rounding a
    scale or a narrower type would bring; zeros are written as +0.

    Raises:
        SecateurError: `weights_non_finite` where the file's type can't hold a value.
    """
    imported = to_parameter(original, layout)
    bits = np.dtype(f"u{imported.dtype.itemsize}")
    given = np.ascontiguousarray(parameter, dtype=imported.dtype)
    changed = given.view(bits) != imported.view(bits)
    if not changed.any():
        return None
    value = given if layout.scale == 1.0 else given / given.dtype.type(layout.scale)
    value = np.where(value == 0, value.dtype.type(0), value)
    with np.errstate(over="ignore"):
        value = value.astype(original.dtype)
    turned = tuple(original.shape[axis] for axis in layout.permutation)
    back = tuple(int(axis) for axis in np.argsort(layout.permutation))
    value = value.reshape(turned).transpose(back)
    where = changed.reshape(turned).transpose(back)
    result = np.where(where, value, original)
    if not np.isfinite(result[where]).all():
        raise SecateurError(
            "weights_non_finite", f"A value is not finite or too large for {original.dtype.name}."
        )
    return np.ascontiguousarray(result)
