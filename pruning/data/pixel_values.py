"""From an upright image to the numbers of a model's input: size, channels, scale, mean, std."""

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pruning.data.members import plain, shown
from pruning.errors import SecateurError
from pruning.facts import ModelFacts, TensorFact
from pruning.formats.bundle import Bundle
from pruning.formats.safetensors import unique

if TYPE_CHECKING:
    from PIL.Image import Image

    from pruning.formats.contract import Preprocessing

MEMBER = "preprocessing.json"
"""A file at the top of the archive that says how its images become numbers."""

_BYTES = 64 * 1024
_Side = Annotated[int, Field(ge=1, le=16_384)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Recipe(BaseModel):
    """What `preprocessing.json` may say; what it leaves out is as the model's upload has it.

    Attributes:
        scale: Pixels, 0 to 255, are multiplied by it first.
        mean: Then this is subtracted by channel; one number stands for all.
        std: Then divided by this.
        size: [height, width] of what the model reads.
        resize: `crop`: scaled until `size` is just covered, the middle kept. `stretch`: scaled to
            `size` whatever the proportions.
        shorter: For `crop`: the shorter side is brought to this first.
        order: Of the channels.
        layout: Where the channels stand, for a model whose shape does not tell.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    scale: _Positive | None = None
    mean: Annotated[list[_Number], Field(min_length=1, max_length=3)] | None = None
    std: Annotated[list[_Positive], Field(min_length=1, max_length=3)] | None = None
    size: Annotated[list[_Side], Field(min_length=2, max_length=2)] | None = None
    resize: Literal["crop", "stretch"] = "crop"
    shorter: _Side | None = None
    order: Literal["RGB", "BGR"] = "RGB"
    layout: Literal["NCHW", "NHWC"] | None = None

    @classmethod
    def read(cls, bundle: Bundle) -> "Recipe":
        """The archive's own, or one that says nothing.

        Raises:
            SecateurError: `data_unreadable`, `data_too_large`.
        """
        if MEMBER not in bundle.sizes:
            return cls()
        text = bundle.read(MEMBER, _BYTES)
        try:
            return cls.model_validate(json.loads(text.decode(), object_pairs_hook=unique))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            reason = shown(f"{place}: {first['msg']}")
        except (ValueError, RecursionError) as error:
            reason = plain(error)
        raise SecateurError(
            "data_unreadable",
            f"{MEMBER} can't be read ({reason}).",
            where=MEMBER,
            hint=f"It is a JSON object with any of: {', '.join(cls.model_fields)}.",
        )


@dataclass(frozen=True)
class Made:
    """A recipe brought together with a model: everything is known."""

    size: tuple[int, int]
    channels: int
    first: bool
    scale: float
    mean: np.ndarray
    std: np.ndarray
    resize: str
    shorter: int | None
    reverse: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image's numbers."""
        h, w = self.size
        return (self.channels, h, w) if self.first else (h, w, self.channels)

    @property
    def numbers(self) -> int:
        """How many numbers one image becomes."""
        return math.prod(self.shape)

    def values(self, image: "Image") -> np.ndarray:
        """The image, of mode L or RGB, as float32 in `shape`."""
        from PIL.Image import Resampling

        h, w = self.size
        resized = image.resize((w, h), Resampling.BILINEAR, box=self._box(image))
        pixels = np.asarray(resized, dtype=np.float32).reshape(h, w, self.channels)
        if self.reverse:
            pixels = pixels[:, :, ::-1]
        values = (pixels * np.float32(self.scale) - self.mean) / self.std
        return values.transpose(2, 0, 1) if self.first else values

    def _box(self, image: "Image") -> tuple[float, float, float, float]:
        """The part that is kept; scaled by itself, so a long thin image costs no more memory."""
        if self.resize == "stretch":
            return (0, 0, image.width, image.height)
        h, w = self.size
        scale = max(h / image.height, w / image.width)
        if self.shorter is not None:
            scale = max(scale, self.shorter / min(image.size))
        kept_w, kept_h = min(w / scale, image.width), min(h / scale, image.height)
        left, top = (image.width - kept_w) / 2, (image.height - kept_h) / 2
        return (left, top, left + kept_w, top + kept_h)


def recipe(model: ModelFacts, given: "Preprocessing | None", own: Recipe) -> Made:
    """How the images of a dataset become a model's input; what the dataset says comes first.

    Raises:
        SecateurError: `data_names` or `data_dtype` for a model without one floating input of four
            axes, `data_shape` where size or channels are not known or contradict each other.
    """
    fact = image_input(model)
    channels, first = _channels(fact, own)
    sides = fact.shape[2:4] if first else fact.shape[1:3]
    size = tuple(own.size or (given.size if given else None) or ())
    if not size:
        if not all(isinstance(side, int) for side in sides):
            raise SecateurError(
                "data_shape",
                f"The model reads images of any size; its input is {_shape(fact)}.",
                where=fact.name,
                hint=f'Say which: {MEMBER} at the top of the archive with {{"size": [224, 224]}}.',
            )
        size = tuple(int(side) for side in sides)
    if any(isinstance(s, int) and s != have for s, have in zip(sides, size, strict=True)):
        raise SecateurError(
            "data_shape",
            f"Images are asked to be {list(size)}, and the model's input is {_shape(fact)}.",
            where=fact.name,
            hint=f"Leave size out of {MEMBER}.",
        )
    mean = own.mean or (list(given.mean) if given else [0.0])
    std = own.std or (list(given.std) if given else [1.0])
    scale = own.scale if own.scale is not None else given.scale if given else 1 / 255
    return Made(
        size=(int(size[0]), int(size[1])),
        channels=channels,
        first=first,
        scale=scale,
        mean=_by_channel(mean, channels, "mean"),
        std=_by_channel(std, channels, "std"),
        resize=own.resize,
        shorter=own.shorter,
        reverse=own.order == "BGR" and channels == 3,
    )


def image_input(model: ModelFacts) -> TensorFact:
    """The model's one image input.

    Raises:
        SecateurError: `data_names` or `data_dtype` where there is none.
    """
    fact = model.inputs[0] if len(model.inputs) == 1 else None
    if fact is None or len(fact.shape) != 4:
        raise SecateurError(
            "data_names",
            "The data are images, and the model does not take one input of four axes; it takes "
            + ", ".join(f"{f.name!r} {_shape(f)}" for f in model.inputs[:10]) + ".",
            hint="Give the arrays as .npz, by the names of the inputs.",
        )  # fmt: skip
    if not fact.dtype.startswith(("float", "bfloat")):
        raise SecateurError(
            "data_dtype",
            f"The data are images, and the model's input {fact.name!r} is {fact.dtype}.",
            where=fact.name,
            hint="Give the arrays as .npz, in the type that the model takes.",
        )
    return fact


def _channels(fact: TensorFact, own: Recipe) -> tuple[int, bool]:
    """How many channels, and whether they stand before height and width."""
    if own.layout is None:
        first = fact.shape[1] in (1, 3)
        if not first and fact.shape[3] not in (1, 3):
            raise SecateurError(
                "data_shape",
                f"The model's input is {_shape(fact)}; its 1 or 3 channels can't be told.",
                where=fact.name,
                hint=f'Say so: {MEMBER} at the top of the archive with {{"layout": "NCHW"}}; '
                "models with other numbers of channels take arrays, as .npz.",
            )
    else:
        first = own.layout == "NCHW"
    found = fact.shape[1 if first else 3]
    channels = found if isinstance(found, int) else 3
    if channels not in (1, 3):
        raise SecateurError(
            "data_shape",
            f"The model's input is {_shape(fact)}; images have 1 or 3 channels.",
            where=fact.name,
            hint="Give the arrays as .npz.",
        )
    return channels, first


def _by_channel(values: list[float], channels: int, name: str) -> np.ndarray:
    """One number a channel, float32; equal ones may be given as one, or as more than needed."""
    if len(values) not in (1, channels) and len(set(values)) > 1:
        raise SecateurError(
            "data_shape",
            f"There are {len(values)} numbers for {name}, and the model reads {channels} channels.",
            where=name,
            hint=f"Give one number a channel in {MEMBER}.",
        )
    one = values[:1] * channels if len(values) != channels else values
    return np.array(one, dtype=np.float32)


def _shape(fact: TensorFact) -> str:
    return "[" + ", ".join(map(str, fact.shape)) + "]"
