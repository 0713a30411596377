"""Datasets as tensors, and the batches drawn from them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.errors import SecateurError

Batch = tuple[tuple[Tensor, ...], Tensor | None]
"""The positional inputs of a model and the target, all with the samples along dimension 0."""


@dataclass(frozen=True)
class ArrayData:
    """Samples along dimension 0 of every tensor.

    Args:
        inputs: Tensors by input name, in the order in which the model takes them: a batch is
            passed as `module(*inputs.values())`.
        target: Labels, or None.

    Raises:
        SecateurError: `data_empty` without samples, `data_shape` where the counts differ,
            `data_dtype` for what is no array.
    """

    inputs: dict[str, Tensor]
    target: Tensor | None = None

    def __post_init__(self) -> None:
        _check_arrays(self.inputs, self.target)
        tensors = dict(self.inputs)
        if self.target is not None:
            tensors["target"] = self.target
        for name, tensor in tensors.items():
            if tensor.ndim == 0 or len(tensor) != self.samples:
                raise SecateurError(
                    "data_shape",
                    f"Array {name} has shape {list(tensor.shape)}; "
                    f"{self.samples} samples along its first dimension were expected.",
                    where=name,
                    hint="Give every array the same number of samples along its first dimension.",
                )

    @property
    def samples(self) -> int:
        """How many samples there are."""
        first = next(iter(self.inputs.values()), None)
        if first is None or first.ndim == 0 or len(first) == 0:
            raise SecateurError(
                "data_empty", "The data hold no samples.", hint="Give at least one sample."
            )
        return len(first)

    def select(self, index: Tensor | slice) -> "ArrayData":
        """The samples at `index`, in that order."""
        return ArrayData(
            {name: tensor[index] for name, tensor in self.inputs.items()},
            None if self.target is None else self.target[index],
        )

    def split(self, share: float, seed: int) -> tuple["ArrayData", "ArrayData"]:
        """Two disjoint parts, (the rest, the held-out `share`), both in the original order.

        At least one sample goes to each part.

        Raises:
            SecateurError: `data_empty` with fewer than two samples.
        """
        count = self.samples
        if count < 2:
            raise SecateurError(
                "data_empty",
                "One sample can't be split into a part to use and a part to hold out.",
                hint="Give at least two samples; a few hundred are sensible.",
            )
        held = min(max(1, int(share * count + 0.5)), count - 1)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        return self.select(order[held:].sort().values), self.select(order[:held].sort().values)

    def same_as(self, other: "ArrayData") -> bool:
        """Whether the other holds the very same samples in the same order."""
        if (self.target is None) != (
            other.target is None
        ) or self.inputs.keys() != other.inputs.keys():
            return False
        pairs = [(tensor, other.inputs[name]) for name, tensor in self.inputs.items()]
        if self.target is not None and other.target is not None:
            pairs.append((self.target, other.target))
        return all(torch.equal(a, b) for a, b in pairs)

    def to(self, device: torch.device | str) -> "ArrayData":
        """The same samples on `device`."""
        return ArrayData(
            {name: tensor.to(device) for name, tensor in self.inputs.items()},
            None if self.target is None else self.target.to(device),
        )

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Iterator[Batch]:
        """All samples once, `batch_size` at a time (the last batch may be smaller).

        Args:
            batch_size: Samples a batch.
            generator: Draws a random order; the original order without one.
            device: Where the batches shall lie; where the data lie without one.
        """
        count = self.samples
        order = None if generator is None else torch.randperm(count, generator=generator)
        for start in range(0, count, batch_size):
            stop = min(start + batch_size, count)
            index: Tensor | slice = slice(start, stop) if order is None else order[start:stop]
            if isinstance(index, Tensor):
                index = index.to(next(iter(self.inputs.values())).device)
            inputs = tuple(tensor[index] for tensor in self.inputs.values())
            target = None if self.target is None else self.target[index]
            if device is not None:
                inputs = tuple(tensor.to(device) for tensor in inputs)
                target = None if target is None else target.to(device)
            yield inputs, target


def _check_arrays(inputs: object, target: object) -> None:
    if not isinstance(inputs, Mapping):
        raise SecateurError(
            "data_dtype",
            f"The inputs are {type(inputs).__name__}, not a mapping of arrays by input name.",
            where="inputs",
            hint="Give ArrayData({name: tensor}, labels).",
        )
    labels = [] if target is None else [("target", target)]
    for name, value in (*inputs.items(), *labels):
        # NumPy arrays are taken too, and become tensors at the library's door.
        if not hasattr(value, "ndim"):
            raise SecateurError(
                "data_dtype",
                f"The array {name} is {type(value).__name__}, not a torch.Tensor.",
                where=str(name),
                hint="Convert it, for example with torch.as_tensor.",
            )


@dataclass(frozen=True)
class Data:
    """Which samples play which role.

    `calibration` feeds curvature, saliencies and the losses of the report; `training` feeds
    recovery; `evaluation` feeds the metrics. `held_out` says that evaluation is a share split off
    from what was given as calibration data, which neither of the others sees.
    """

    calibration: ArrayData
    training: ArrayData
    evaluation: ArrayData
    held_out: bool = False

    @classmethod
    def from_calibration(cls, data: ArrayData, seed: int, share: float = 0.2) -> "Data":
        """The roles when only calibration data are given: a seeded `share` is held out."""
        rest, held = data.split(share, seed)
        return cls(calibration=rest, training=rest, evaluation=held, held_out=True)
