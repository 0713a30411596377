"""A caller's samples as the loop takes them, in the types that the module computes in."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruning.data.batches import ArrayData, Data
from pruning.data.fit import non_finite
from pruning.data.labels import TARGET
from pruning.errors import SecateurError
from pruning.report.schema import ReportWarning

_ROLES = ("calibration", "training", "evaluation")
_PAIR = "Pass (inputs, labels); for several inputs ({name: tensor, ...}, labels)."

_JOIN = (
    "Join its batches: inputs, labels = map(torch.cat, zip(*data)); of batches that are "
    "dictionaries: batches = list(data); joined = {k: torch.cat([b[k] for b in batches]) for k in "
    'batches[0]}; labels = joined.pop("labels"). Then pass (inputs, labels), or (joined, labels).'
)


def as_arrays(data: Any, *, labelled: bool = True) -> ArrayData:
    """Samples as a caller of `pruning.prune` gives them.

    Args:
        data: `ArrayData`; inputs or (inputs,) where no labels are needed; or (inputs, labels).
            Inputs are a tensor, a NumPy array, or a mapping of these by input name.
        labelled: Whether the objective needs labels.

    Raises:
        SecateurError: `labels_missing` for inputs alone where labels are needed, `data_unreadable`
            for anything else that is no pair, `data_dtype` where a part is no array of numbers,
            `data_shape` where counts differ.
    """
    if isinstance(data, ArrayData):
        return _arrays(data.inputs, data.target)
    if isinstance(data, Tensor | np.ndarray | Mapping):
        data = (data,)
    if isinstance(data, tuple | list) and len(data) == 1:
        if labelled:
            raise SecateurError(
                "labels_missing",
                "The data hold inputs and no labels.",
                where="data",
                hint="Pass them as the pair (inputs, labels), or ask for objective "
                "{loss: match_dense}, which needs none.",
            )
        data = (data[0], None)
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise _no_pair(data)
    inputs, target = data
    named = inputs if isinstance(inputs, Mapping) else {"input": inputs}
    return _arrays(named, target)


def has_names(data: Any) -> bool:
    """Whether the caller named the inputs."""
    if isinstance(data, Data):
        return has_names(data.calibration)
    if isinstance(data, tuple | list) and data:
        return has_names(data[0])
    return isinstance(data, ArrayData | Mapping)


def in_roles(data: Any, *, labelled: bool) -> Data | ArrayData:
    """The samples, roles told apart where the caller did so.

    Raises:
        SecateurError: What `as_arrays` raises, `data_names` where roles have other inputs.
    """
    if not isinstance(data, Data):
        return as_arrays(data, labelled=labelled)
    parts = dict(zip(_ROLES, (data.calibration, data.training, data.evaluation), strict=True))
    made = {id(part): as_arrays(part, labelled=labelled) for part in parts.values()}
    names = list(made[id(data.calibration)].inputs)
    for role, part in parts.items():
        found = list(made[id(part)].inputs)
        if found != names:
            raise SecateurError(
                "data_names",
                f"The {role} data have the inputs {', '.join(found)}; the calibration data have "
                f"{', '.join(names)}.",
                where=f"data.{role}",
                hint="Give every role the same inputs in the same order.",
            )
    calibration, training, evaluation = (made[id(part)] for part in parts.values())
    return Data(calibration, training, evaluation, data.held_out)


class Fitted:
    """Samples in the types that a module computes in.

    Args:
        types: Floating types of the module's parameters, the first one being that of most inputs.
    """

    def __init__(self, types: list[torch.dtype]) -> None:
        self._types = types or [torch.float32]
        self._seen: dict[int, ArrayData] = {}
        self._changes: dict[str, None] = {}

    def fit(self, data: Data | ArrayData) -> Data | ArrayData:
        """The same samples; parts that are one object stay one.

        Floating inputs of another type than the module's are cast to its first one, real-valued
        labels to float64 for a module of that type and to float32 for others, as for files.

        Raises:
            SecateurError: `data_non_finite` for NaN and infinity, also where a value is too large
                for the type.
        """
        if isinstance(data, Data):
            return Data(
                self._part(data.calibration),
                self._part(data.training),
                self._part(data.evaluation),
                data.held_out,
            )
        return self._part(data)

    @property
    def notes(self) -> list[ReportWarning]:
        """What is to be said of it."""
        if not self._changes:
            return []
        message = f"The data were converted to the types of the module: {', '.join(self._changes)}."
        return [ReportWarning(code="data_converted", message=message, where="data")]

    def _part(self, data: ArrayData) -> ArrayData:
        if id(data) not in self._seen:
            inputs = {name: self._input(name, x) for name, x in data.inputs.items()}
            target = None if data.target is None else self._target(data.target)
            self._seen[id(data)] = ArrayData(inputs, target)
        return self._seen[id(data)]

    def _input(self, name: str, x: Tensor) -> Tensor:
        wanted = x.dtype if x.dtype in self._types else self._types[0]
        return self._cast(name, x, wanted)

    def _target(self, target: Tensor) -> Tensor:
        double = self._types[0] == torch.float64
        return self._cast(TARGET, target, torch.float64 if double else torch.float32)

    def _cast(self, name: str, x: Tensor, wanted: torch.dtype) -> Tensor:
        if not x.is_floating_point():
            return x
        cast = x.to(wanted)
        if not bool(torch.isfinite(cast).all()):
            raise non_finite(name)
        if x.dtype != wanted:
            self._changes[f"{name} from {_name(x.dtype)} to {_name(wanted)}"] = None
        return cast


def _arrays(inputs: Mapping[Any, Any], target: Any) -> ArrayData:
    made = {str(name): _tensor(str(name), value) for name, value in inputs.items()}
    return ArrayData(made, None if target is None else _tensor(TARGET, target))


def _tensor(name: str, value: Any) -> Tensor:
    """One array of numbers, outside any graph."""
    words = "labels" if name == TARGET else f"inputs {name!r}" if name != "input" else "inputs"
    if isinstance(value, np.ndarray):
        return _from_numpy(words, name, value)
    if not isinstance(value, Tensor):
        raise SecateurError(
            "data_dtype",
            f"The {words} are {type(value).__name__}, not a torch.Tensor.",
            where=name,
            hint=_conversion(value),
        )
    if value.layout != torch.strided or value.is_quantized or value.is_nested or value.is_meta:
        kind = "nested" if value.is_nested else "quantised" if value.is_quantized else "sparse"
        kind = "without values (on the meta device)" if value.is_meta else kind
        raise SecateurError(
            "data_dtype", f"The {words} are a tensor that is {kind}.", where=name,
            hint="Give a dense tensor with one row a sample.",
        )  # fmt: skip
    if name == TARGET and value.is_complex():
        raise SecateurError(
            "data_dtype", "The labels are complex numbers.", where=name,
            hint="Give class numbers or real values.",
        )  # fmt: skip
    plain = value.detach()
    return plain.clone() if plain.is_inference() else plain


def _from_numpy(words: str, name: str, value: np.ndarray) -> Tensor:
    if isinstance(value, np.ma.MaskedArray):
        raise SecateurError(
            "data_dtype", f"The {words} are a masked array, whose gaps have no numbers.",
            where=name, hint="Fill or remove them first.",
        )  # fmt: skip
    if value.dtype.name == "bfloat16":
        return torch.from_numpy(value.view(np.int16).copy()).view(torch.bfloat16)
    native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
    try:
        return _tensor(name, torch.from_numpy(native))
    except TypeError:
        raise SecateurError(
            "data_dtype",
            f"The {words} are a NumPy array of the type {value.dtype.name}, which is not a number "
            "that torch has.",
            where=name,
            hint="Give real numbers or whole numbers; number the classes from 0.",
        ) from None


def _conversion(value: Any) -> str:
    if hasattr(value, "to_numpy"):
        return "Pass its numbers: value.to_numpy()."
    if hasattr(value, "toarray"):
        return "Make it dense: value.toarray()."
    if isinstance(value, list | tuple) and any(isinstance(v, Tensor | np.ndarray) for v in value):
        return f"Join samples with torch.stack. {_PAIR}"
    return "Convert them, for example with torch.as_tensor."


def _no_pair(data: Any) -> SecateurError:
    found = type(data).__name__
    hint = _PAIR
    if isinstance(data, tuple | list):
        found += f" of {len(data)}"
    elif isinstance(data, str) or hasattr(data, "__fspath__"):
        hint = "Files are pruned with `secateur prune MODEL --data DATA --local`."
    elif hasattr(data, "__iter__") or hasattr(data, "__getitem__"):
        hint = _JOIN
    elif hasattr(data, "to_numpy"):
        hint = "Pass the numbers of inputs and labels, as value.to_numpy(). " + _PAIR
    return SecateurError(
        "data_unreadable",
        f"The data are {found}, not a pair (inputs, labels).",
        where="data",
        hint=hint,
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
