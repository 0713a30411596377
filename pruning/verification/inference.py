"""A model as its users run it: ONNX files in onnxruntime, other formats in torch."""

import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from onnx import NodeProto
from torch import Tensor

from pruning.calling import arranged
from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.formats.contract import Imported
from pruning.formats.onnx import ImportedModel, inference_copy
from pruning.samples import Place, by_samples, filled, fit_to
from pruning.verification.sigmoids import by_exponentials, has_sigmoids

BATCH = 512
"""Samples a batch, where the file does not fix it."""


def session_options(threads: int) -> ort.SessionOptions:
    """Options of every session: as many threads, which sleep as torch's do (`pruning.threads`)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    return options


class Engine:
    """One model, ready to run on the CPU.

    Args:
        model: As read from its file.
        threads: Threads of one operation in onnxruntime; torch has its own setting.
        exact_sigmoids: Whether an ONNX model runs with `sigmoids.by_exponentials`.
    """

    def __init__(self, model: Imported, threads: int, *, exact_sigmoids: bool = False) -> None:
        self.model, self.threads, self._exact_sigmoids = model, threads, exact_sigmoids

    @property
    def name(self) -> str:
        """What runs it."""
        return "onnxruntime" if isinstance(self.model, ImportedModel) else "torch"

    def with_exact_sigmoids(self) -> "Engine | None":
        """The same model with sigmoids of seven digits; None where that changes nothing."""
        if not isinstance(self.model, ImportedModel) or not has_sigmoids(self.model.proto):
            return None
        return Engine(self.model, self.threads, exact_sigmoids=True)

    @torch.no_grad()  # on the function: torch then leaves the mode to the caller between batches
    def outputs(self, data: ArrayData) -> Iterator[np.ndarray]:
        """The first output for all samples, a batch at a time.

        Raises:
            Exception: Whatever onnxruntime raises for a model that it can't run.
        """
        model = self.model
        with by_samples(model.module):
            place = fit_to(model.module, data, model.facts)
            if isinstance(model, ImportedModel):
                yield from self._in_onnxruntime(data, place)
                return
            for batch, _ in data.batches(BATCH):
                yield first_output(model.module(*batch)).numpy()

    def one(self, data: ArrayData) -> Callable[[], Any]:
        """A run of one batch of the smallest size that the file takes, its inputs ready.

        Raises:
            Exception: Whatever onnxruntime raises for a model that it can't load.
        """
        size = self.model.file_batch or 1
        some = data.select(slice(0, size))
        parts = tuple(filled(part, size) for part in some.inputs.values())
        if isinstance(self.model, ImportedModel):
            session, feed = self._session, self._feed(parts)
            return lambda: session.run(None, feed)
        module = self.model.module
        tensors = tuple(part.contiguous() for part in self._arranged(parts))

        def run() -> Any:
            with torch.inference_mode():
                return module(*tensors)

        return run

    @cached_property
    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory()

    @cached_property
    def _session(self) -> ort.InferenceSession:
        assert isinstance(self.model, ImportedModel)
        options = session_options(self.threads)
        return ort.InferenceSession(self._graph(), options, providers=["CPUExecutionProvider"])

    def _graph(self) -> bytes | str:
        """The file that is delivered, or the bytes of a graph to run in its place."""
        assert isinstance(self.model, ImportedModel)
        proto, names = self.model.proto, self.model.module.output_names
        if self._exact_sigmoids:
            return by_exponentials(inference_copy(proto, names)).SerializeToString()
        given = {value.name for value in proto.graph.output}
        if any(map(_in_training_mode, proto.graph.node)) or not given.issuperset(names):
            # As it stands, the file would drop numbers at random, or make texts of its outputs.
            return inference_copy(proto, names).SerializeToString()
        if self.model.files is not None:
            # onnxruntime takes the weights from the files that are delivered.
            return str(self.model.files.unpacked(Path(self._scratch.name)))
        return str(self.model.source)

    def _arranged(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return arranged(parts, [fact.axis for fact in self.model.facts.inputs])

    def _feed(self, parts: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
        """Samples first, as the session takes them."""
        return {
            fact.name: np.ascontiguousarray(part.numpy().astype(fact.dtype))
            for fact, part in zip(self.model.facts.inputs, self._arranged(parts), strict=True)
        }

    def _in_onnxruntime(self, data: ArrayData, place: Place) -> Iterator[np.ndarray]:
        assert isinstance(self.model, ImportedModel)
        output = self.model.module.output_names[place.output]
        fixed = self.model.file_batch
        for batch, _ in data.batches(fixed or BATCH):
            count = len(batch[0])
            parts = tuple(filled(part, fixed or count) for part in batch)
            found = self._session.run([output], self._feed(parts))[0]
            if fixed == 1 and found.shape[place.axis : place.axis + 1] != (1,):
                found = found[None]  # a file of one sample may leave its axis out
            else:
                found = np.moveaxis(found, place.axis, 0)
            yield found[:count] if fixed else found


def _in_training_mode(node: NodeProto) -> bool:
    if node.op_type == "Dropout":
        return len(node.input) > 2
    return any(a.name == "training_mode" and a.i for a in node.attribute)
