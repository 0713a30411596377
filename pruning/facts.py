"""What intake learned of a model or a dataset: enough for plans and checks without torch."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SampleAxis = Annotated[int, Field(ge=0)] | Literal["shared", "unknown"]
"""The axis along which a tensor holds the samples; `shared`: one value for all of them."""


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TensorFact(_Facts):
    """One input, output or array. A dimension that is not fixed is its symbolic name, or `?`.

    `samples` is the axis along which the samples lie; `shared` where all of them have one value,
    `unknown` where neither names nor a trial of the network tell. Data files have samples first
    whatever it is.
    """

    name: str
    dtype: str
    shape: list[int | str]
    samples: SampleAxis = 0

    @property
    def axis(self) -> int | None:
        """The axis of the samples, the first where it is unknown; None where they share a value."""
        if self.samples == "shared" or not self.shape:
            return None
        return 0 if isinstance(self.samples, str) else self.samples

    @property
    def one(self) -> list[int | str]:
        """The sizes of one sample."""
        axis = self.axis
        return [size for place, size in enumerate(self.shape) if place != axis]

    @property
    def count(self) -> int | str | None:
        """The size along the axis of the samples; None where there is none."""
        axis = self.axis
        return self.shape[axis] if axis is not None and axis < len(self.shape) else None

    @property
    def as_data(self) -> list[int | str]:
        """The shape that data have: N samples first."""
        return ["N", *self.one]

    def placed(self) -> "TensorFact":
        """The same with the samples first, as data and the job's losses have it."""
        axis = self.axis
        if axis is None or axis == 0:
            return self
        count = self.shape[axis]
        return self.model_copy(update={"shape": [count, *self.one], "samples": 0})


class LayerFact(_Facts):
    """One weight that products multiply by: of a layer, or a parameter by itself.

    `name` is the layer's path, or the weight's own where the layer holds several; `layer` is the
    layer's path then. `shape` is the weight's shape in the torch layout ([out, in] or
    [out, in / groups, *kernel]). `positions` counts the places a sample at which an entry is used:
    1 for a Linear on vectors, H*W output positions of a Conv2d, input positions of a transposed
    convolution, steps of a recurrent layer. `macs` and `activation_bytes` are per sample. They are
    None where the sizes are not fixed. `weight` is the tensor's name in the uploaded file.
    `is_output` marks a layer whose result reaches a graph output without another weight in
    between. `embedding`: the weight is a table of embeddings too. `beside`: a product outside the
    layer's calls uses the weight, as `x @ layer.weight`. `zeros` counts entries of the weight that
    are zero; None where an earlier version did not count them.
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
    zeros: int | None = None
    layer: str | None = None
    embedding: bool = False
    beside: bool = False


VECTORS = "vectors"
"""Kind of the parameters with at most one axis, all together: biases, factors of norms."""


COMPUTED = "computed"
"""Kind of a matrix that products take in another form than as it is: a factor computed from it."""


UNUSED = "unused"
"""Kind of a layer's matrix that no operation of a pass took, as that of a head for training."""


class OtherFact(_Facts):
    """Parameters that can't be pruned: an embedding, one `COMPUTED` or `UNUSED`, all `VECTORS`."""

    name: str
    kind: str
    parameters: int


class ModelFacts(_Facts):
    """What is known of an uploaded model.

    `others` are the parameters beside the layers' weights. `batch` is the fixed batch size, or
    None when free. `declared`: the axis of the samples by input, as far as the upload said it.
    `text`: the upload brings its tokenizer, so texts can be given as data. `bytes` of its files;
    `sparse_bytes` of the sparse file of the upload as it is, None where it was too large to try.
    """

    format: str
    version: str
    producer: str = ""
    inputs: list[TensorFact]
    outputs: list[TensorFact]
    layers: list[LayerFact]
    others: list[OtherFact] = []
    ties: list[list[str]] = []
    dtypes: list[str] = []
    parameters: int
    prunable_parameters: int
    macs: int | None = None
    activation_bytes: int | None = None
    batch: int | None = None
    text: bool = False
    declared: dict[str, SampleAxis] = {}
    bytes: int | None = None
    sparse_bytes: int | None = None
    operators: dict[str, int] = {}

    @property
    def output(self) -> TensorFact | None:
        """The output that losses see: the first of real numbers, else the first."""
        real = (fact for fact in self.outputs if "float" in fact.dtype)
        return next(real, self.outputs[0] if self.outputs else None)


class TargetFact(_Facts):
    """Labels: `classes` is max + 1 for integer labels, None for real-valued targets.

    `ignored`: some integer labels are -100, positions that do not count. `names`: where labels came
    as texts or as names of folders, the classes in sorted order, so class i is `names[i]`.
    """

    dtype: str
    shape: list[int]
    classes: int | None = None
    ignored: bool = False
    names: list[str] = []


class ImagesFact(_Facts):
    """Images as uploaded: the least and the largest [height, width] among them, side by side."""

    smallest: list[int]
    largest: list[int]


class DatasetFacts(_Facts):
    """What is known of an uploaded dataset.

    `arrays` leaves `target` out, and is empty for `text` and `images`, whose arrays are made when
    the model is known. `longest_text` counts characters; `pairs` says that texts come in twos.
    `bytes` is what the content takes once unpacked: arrays, texts, or images as uploaded.
    """

    format: Literal["npz", "safetensors", "jsonl", "images", "parquet"]
    samples: int
    arrays: list[TensorFact]
    target: TargetFact | None = None
    bytes: int
    text: bool = False
    pairs: bool = False
    longest_text: int | None = None
    images: ImagesFact | None = None
