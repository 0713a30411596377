"""What a format gives the rest of the program: a model as uploaded, as a module, and back.

A format is one module of `pruning.formats` with one function, entered in `registry`:

    def read(source: Path, limits: Limits, declared: Declared | None = None) -> Imported

`source` is the uploaded file, or the folder that holds the files of an upload of several;
`declared` is what the user says of the axes that hold samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import nn

from pruning.facts import ModelFacts


class Tokenizer(Protocol):
    """Text to the integer inputs of a model."""

    def __call__(self, texts: Sequence[str | tuple[str, str]]) -> dict[str, np.ndarray]:
        """One int64 array [texts, tokens] for each input of the model, padded to one length.

        A pair is a text and its second sentence. `attention_mask` is always there, also where the
        model does not take it.
        """
        ...


@dataclass
class Preprocessing:
    """How pixels become the numbers that a model's image input takes.

    The value is `(pixel * scale - mean) / std` by channel, `pixel` from 0 to 255; images are
    brought to `size` (height, width), or to the size of the model's input where it is None.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    size: tuple[int, int] | None = None


@dataclass
class Imported(ABC):
    """A model as uploaded and as a module.

    Attributes:
        module: Trainable, in eval mode, called with the inputs in the order of `facts.inputs`;
            the first output is what losses see. Prunable weights belong to Linear and Conv layers.
        facts: What intake learned.
        weight_names: Parameter path of the module to the tensor's name in the file, tied
            parameters under each of their paths.
        source: The file or folder that was read.
        tokenizer: For models that take text, where the upload says how.
        preprocessing: For models that take images, where the upload says how.
    """

    module: nn.Module
    facts: ModelFacts
    weight_names: dict[str, str]
    source: Path
    tokenizer: Tokenizer | None = field(default=None, kw_only=True)
    preprocessing: Preprocessing | None = field(default=None, kw_only=True)

    @property
    def file_batch(self) -> int | None:
        """The only number of samples that the file takes, whatever the module does."""
        return self.facts.batch

    @abstractmethod
    def write(self, folder: Path, stem: str) -> list[Path]:
        """Writes the upload with the module's current parameters and statistics, in its own form.

        Args:
            folder: An existing folder.
            stem: What a single file is called, without its suffix; the files of an upload of
                several keep their names.

        Returns:
            The files. The same values always give the same bytes.

        Raises:
            SecateurError: `weights_non_finite` where the file's type can't hold a value.
        """

    @abstractmethod
    def tensors(self) -> Mapping[str, np.ndarray]:
        """Every tensor of `source` by the file's own name, in the file's own type."""

    @abstractmethod
    def skeleton(self) -> object:
        """All of the upload but the tensors' numbers, comparable with `==` after a round trip."""
