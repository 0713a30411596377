"""Whether arrays fit a model's inputs, and the arrays in the types that the model computes in."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from pruning.data.labels import TARGET
from pruning.data.members import shown
from pruning.errors import SecateurError
from pruning.facts import ModelFacts, TensorFact
from pruning.match import expected, fits, rearranged
from pruning.near_miss import near_miss

if TYPE_CHECKING:
    from torch import Tensor

    from pruning.data.batches import ArrayData

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_COMPARED = 8  # names that are missing, each with all that are there
_COMPUTED_IN = {"float16": "float32", "bfloat16": "float32"}


def tensors(arrays: dict[str, np.ndarray], model: ModelFacts) -> "ArrayData":
    """The arrays as tensors, ordered as the model's inputs and in the types the model computes in.

    Floating arrays are cast to the model's floating type (float32 for a float16 model, which
    computes in float32), integer arrays to its integer type where every value fits. Labels become
    int64, real-valued targets the model's floating type.

    Args:
        arrays: By input name, and the labels as `target`; they may be kept and written to.
        model: Facts of the model.

    Raises:
        SecateurError: `data_names`, `data_shape`, `data_dtype` where they do not fit the model.
    """
    import torch

    from pruning.data.batches import ArrayData

    wanted = {fact.name: fact for fact in model.inputs}
    arrays = dict(arrays)
    target = arrays.pop(TARGET, None) if TARGET not in wanted else None
    match_names(arrays, list(wanted))
    inputs = {}
    samples = next((len(a) for a in (*arrays.values(), target) if a is not None and a.ndim), 1)
    for name, fact in wanted.items():
        match_shape(arrays[name], fact)
        value = torch.from_numpy(cast(arrays.pop(name), fact))
        inputs[name] = value if fact.axis is not None else shared(value, fact, samples)
    labels = None
    if target is not None:
        real = "float64" if model.inputs[0].dtype == "float64" else "float32"
        kind = np.dtype("int64") if target.dtype.kind in "iu" else np.dtype(real)
        labels = torch.from_numpy(converted(target, kind, TARGET))
    return ArrayData(inputs=inputs, target=labels)


def match_names(arrays: dict[str, np.ndarray], wanted: list[str]) -> None:
    """Every input has its array and there is no other.

    Raises:
        SecateurError: `data_names` with what was found, what is expected and a guess.
    """
    missing = [name for name in wanted if name not in arrays]
    extra = [name for name in arrays if name not in wanted]
    if not missing and not extra:
        return
    close = {m: near_miss(m, extra, cutoff=0.5) for m in missing[:_COMPARED]}
    if len(missing) == len(extra) == 1:
        close = {missing[0]: extra[0]}
    renames = "; ".join(f"is {e!r} meant to be {m!r}?" for m, e in close.items() if e is not None)
    raise SecateurError(
        "data_names",
        f"The data hold {_listed(arrays)}; the model's inputs are {_listed(wanted)}.",
        where=(missing or extra)[0],
        hint=(renames[:1].upper() + renames[1:] + " " if renames else "")
        + "Name each array after a model input; labels are called 'target'.",
        found=list(arrays),
        expected=wanted,
    )


def match_shape(array: np.ndarray, fact: TensorFact) -> None:
    """The array has the input's shape, with the samples first, symbolic sizes aside.

    Raises:
        SecateurError: `data_shape`.
    """
    if not fits(array.shape, fact):
        raise SecateurError(
            "data_shape",
            f"The array {fact.name!r} has shape {list(array.shape)}; {expected(fact)}",
            where=fact.name,
            hint=rearranged(array.shape, fact),
        )


def shared(value: "Tensor", fact: TensorFact, samples: int) -> "Tensor":
    """What all samples have in common, once for each of them [N, ...], in the memory of one.

    Raises:
        SecateurError: `data_shape` where they differ.
    """
    one = value[0] if value.ndim else value.reshape([int(size) for size in fact.shape])
    if value.ndim and not bool((value == one).all()):
        raise SecateurError(
            "data_shape",
            f"The array {fact.name!r} differs from sample to sample, and the model takes one value "
            "of it for a whole batch.",
            where=fact.name,
            hint="Give the samples of one value, or export the model with an axis of samples in "
            f"this input; if it has one, declare it: inputs: {{{fact.name}: {{samples: 0}}}}.",
        )
    return one.expand(samples, *one.shape)


def cast(array: np.ndarray, fact: TensorFact) -> np.ndarray:
    """The array in the type that the model computes this input in.

    Raises:
        SecateurError: `data_dtype` for a type of another kind, or values out of range.
    """
    want = np.dtype(_COMPUTED_IN.get(fact.dtype, fact.dtype))
    if array.dtype == BFLOAT16:  # NumPy gives the type no kind of its own
        array = array.astype(np.float32)
    same_kind = array.dtype.kind == want.kind or {array.dtype.kind, want.kind} <= set("iu")
    if not same_kind:
        raise SecateurError(
            "data_dtype",
            f"The array {fact.name!r} has type {array.dtype.name}; the model takes {fact.dtype}.",
            where=fact.name,
            hint=f"Convert it with array.astype(numpy.{fact.dtype}), scaled as in training.",
        )
    return converted(array, want, fact.name)


def converted(array: np.ndarray, dtype: np.dtype[Any], name: str) -> np.ndarray:
    """The array in another type of its kind.

    Raises:
        SecateurError: `data_non_finite` or `data_dtype` where a value does not fit.
    """
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise non_finite(name)
    if dtype.kind in "iu" and not np.array_equal(cast, array):
        raise SecateurError(
            "data_dtype", f"The array {name!r} has values that {dtype.name} can't hold.", where=name
        )
    return cast


def non_finite(name: str) -> SecateurError:
    """The error for NaN or infinity in an array."""
    return SecateurError(
        "data_non_finite",
        f"The array {name!r} holds NaN or infinity.",
        where=name,
        hint="Remove or repair these samples.",
    )


def _listed(names: Iterable[str]) -> str:
    quoted = [repr(shown(name)) for name in names]
    more = f" and {len(quoted) - 8} more" if len(quoted) > 8 else ""
    return ", ".join(quoted[:8]) + more
