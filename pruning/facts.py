"""What intake learned of a model or a dataset: enough for plans and checks without torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TensorFact(_Facts):
    """One input, output or array. A dimension that is not fixed is its symbolic name, or `?`."""

    name: str
    dtype: str
    shape: list[int | str]


class LayerFact(_Facts):
    """One layer with a prunable weight.

    `shape` is the weight's shape in the torch layout ([out, in] or [out, in / groups, *kernel]).
    `positions` counts the output positions a sample (1 for a Linear on vectors, H*W for a Conv2d);
    `macs` and `activation_bytes` are per sample. They are None where the sizes are not fixed.
    `weight` is the tensor's name in the uploaded file. `is_output` marks a layer whose result
    reaches a graph output without another prunable layer in between.
    """

    name: str
    kind: str
    weight: str
    shape: list[int]
    parameters: int
    dtype: str
    groups: int = 1
    positions: int | None = None
    macs: int | None = None
    activation_bytes: int | None = None
    is_output: bool = False
    tied_to: str | None = None


class ModelFacts(_Facts):
    """What is known of an uploaded model.

    `batch` is the fixed batch size, or None when free. `text`: the upload brings its tokenizer, so
    texts can be given as data.
    """

    format: str
    version: str
    producer: str = ""
    inputs: list[TensorFact]
    outputs: list[TensorFact]
    layers: list[LayerFact]
    ties: list[list[str]] = []
    dtypes: list[str] = []
    parameters: int
    prunable_parameters: int
    macs: int | None = None
    activation_bytes: int | None = None
    batch: int | None = None
    text: bool = False
    operators: dict[str, int] = {}


class TargetFact(_Facts):
    """Labels: `classes` is max + 1 for integer labels, None for real-valued targets.

    `ignored`: some integer labels are -100, positions that do not count.
    """

    dtype: str
    shape: list[int]
    classes: int | None = None
    ignored: bool = False


class DatasetFacts(_Facts):
    """What is known of an uploaded dataset; `arrays` leaves `target` out."""

    format: Literal["npz"]
    samples: int
    arrays: list[TensorFact]
    target: TargetFact | None = None
    bytes: int
