"""Through the network layer after layer, each calibrated on what its pruned predecessors give it.

What a layer is aimed at, with X_p its inputs in the pruned network and X_d those in the dense one:

- `weights`: A = W, with the Gram matrix of X_d. No layer knows of the others.
- `layer`: A = W, with the Gram matrix of X_p.
- `dense`: A = argmin |X_p A' - X_d W'|^2 / m + lambda |A - W|^2, the dense network's output.
- `stream`: the same, and where the layer's output is added to a residual stream that already lies
  r apart from the dense network's, the layer makes up for r as well: |X_p A' - X_d W' - r|^2.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pruning.data.batches import ArrayData
from pruning.layers import Prunable
from pruning.layerwise.collected import Collected, collected, energy
from pruning.layerwise.moments import Moments
from pruning.layerwise.order import Stage, find_order
from pruning.layerwise.residence import Residence
from pruning.layerwise.shelf import Shelf
from pruning.layerwise.streams import Batch, Streams
from pruning.solvers.layer import LayerSolution

Aim = Literal["weights", "layer", "dense", "stream"]
Solve = Callable[[Collected], LayerSolution | None]


@dataclass(frozen=True)
class Options:
    """How to walk.

    Args:
        aim: What layers are aimed at.
        damping: Relative to the mean of the Gram matrix' diagonal.
        batch: Samples in a batch; one batch of activations is on the device at a time.
        whole: Whether a last batch of fewer samples is left out.
        neighbours: Whether input channels shall be neighbours among a convolution's columns, as
            patterns want them, rather than kernel positions.
        device: Where the arithmetic happens; where the module lies without one.
        limit: Bytes of memory for the activations of waiting batches; what goes beyond is written
            to files. None: no limit.
        folder: For these files; the system's folder for temporary files without one.
        masks: Whether to keep which weights were removed, at a byte a weight.
    """

    aim: Aim = "stream"
    damping: float = 0.01
    batch: int = 16
    whole: bool = False
    neighbours: bool = False
    device: torch.device | None = None
    limit: int | None = None
    folder: Path | None = None
    masks: bool = True


@dataclass(frozen=True)
class Layer:
    """What became of a layer.

    Args:
        name: Of the weight.
        error: tr((W' - A) H (W' - A)') of the written weights W', undamped; None if not solved.
        energy: tr(A H A').
        count: How many weights the solution took away; None if not solved.
        removed: Which, in the weight's shape, on the CPU; None if not solved or not to be kept.
        columns: Columns of each group that H is the mean of.
        entries: Of a column; fewer columns than these leave H without full rank.
        dead: Entries that are zero in every column, over all groups.
        uses: How often a batch uses the weight.
    """

    name: str
    error: float | None
    energy: float
    count: int | None
    removed: Tensor | None
    columns: int
    entries: int
    dead: int
    uses: int

    @property
    def relative(self) -> float | None:
        """Error by energy."""
        if self.error is None:
            return None
        return self.error / self.energy if self.energy > 0 else 0.0


@dataclass(frozen=True)
class Walk:
    """All layers in the order in which they were solved, and what a report should say."""

    layers: list[Layer]
    notes: list[str] = field(default_factory=list)


def walk(
    module: nn.Module,
    weights: Sequence[Prunable],
    data: ArrayData,
    solve: Solve,
    options: Options | None = None,
    *,
    real: Tensor | None = None,
    done: Mapping[str, Tensor] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Walk:
    """Solve every layer in the order of first use, and write its weights into the module.

    It takes as long as one forward pass of the calibration data through each network that the aim
    needs, the solving aside; twice that for each weight that is used more than once.

    Args:
        module: In evaluation mode, and of a kind that `pruning.prune` takes: it is not checked
            here, nor are the data. Its weights may lie on another device than that of `options`,
            or in memory-mapped files.
        weights: In scope.
        data: Calibration data; labels are not needed.
        solve: Given a layer's problem, its solution; None leaves the layer as it is.
        options: How to walk.
        real: Which tokens are no padding, [N, T] (see `padding.real_tokens`); all without it.
        done: Of a walk that goes on: by name the dense weights of the layers that it solved before,
            whose pruned weights are in the module.
        progress: Called with (weights done, weights in all, the next weight's name).

    Raises:
        SecateurError: `operator_unsupported` for a weight that is used as no matrix, or not at all;
            `factorization_failed` or `loss_non_finite` naming a layer; and what `solve` raises.
    """
    if any(part.training for part in module.modules()):
        raise ValueError("layers are calibrated in evaluation mode: call module.eval() first")
    options = options or Options()
    by_name = {p.name: p for p in weights}
    residence = Residence(module, options.device)
    shelf = Shelf(options.limit, options.folder)
    batches = _batches(data, real, options)
    pruned, dense = options.aim != "weights", options.aim != "layer"
    tensors = {name: p.weight for name, p in by_name.items()}
    layers: list[Layer] = []
    with plain_attention():
        order = find_order(module, tensors, batches[0].inputs, residence, batches[0].real)
        for refusal in order.refused.values():
            raise refusal
        with Streams(
            module, tensors, batches, residence, shelf, dense=dense, pruned=pruned
        ) as streams:
            streams.lasting = any(stage.shared for stage in order.stages)
            streams.go_on(done or {})
            for stage in filter(None, (stage.without(done or {}) for stage in order.stages)):
                if progress is not None:
                    progress(len(layers) + len(done or {}), len(by_name), stage.names[0])
                moments = _moments(stage, options, residence.device, cross=dense and pruned)
                streams.collect(stage, moments, drift=options.aim == "stream")
                for name in stage.names:
                    weight = by_name[name].weight.detach().to(residence.device)
                    problem = collected(
                        by_name[name], stage.forms[name], moments, options.neighbours, weight
                    )
                    uses = len(stage.sightings[name])
                    layers.append(_solved(problem, solve, streams, uses, options.masks))
                    del problem, weight
                streams.finish(stage.names)
        if progress is not None:
            progress(len(by_name), len(by_name), "")
        return Walk(layers, [*order.notes, *dict.fromkeys(streams.notes)])


def _solved(problem: Collected, solve: Solve, streams: Streams, uses: int, masks: bool) -> Layer:
    name, gram = problem.prunable.name, problem.gram
    solution = solve(problem)
    error = count = removed = None
    size = energy(problem.aim, gram)
    if solution is not None:
        streams.replace(name, problem.as_weight(solution.weight))
        written = streams.watch.weights[name].detach().to(gram.device, gram.dtype, copy=True)
        error = energy(problem.as_matrix(written).sub_(problem.aim), gram)
        count = int(solution.removed.sum())
        removed = problem.as_weight(solution.removed).cpu() if masks else None
    dead = int((gram.diagonal(dim1=1, dim2=2) == 0).sum())
    return Layer(name, error, size, count, removed, problem.columns, gram.shape[1], dead, uses)


def _moments(stage: Stage, options: Options, device: torch.device, cross: bool) -> Moments:
    form = stage.forms[stage.names[0]]
    entries = form.entries
    return Moments(form.groups, entries, options.damping, cross, device)


def _batches(data: ArrayData, real: Tensor | None, options: Options) -> list[Batch]:
    size = options.batch
    if options.whole and data.samples > size:
        data = data.select(slice(0, data.samples - data.samples % size))
    starts = range(0, data.samples, size)
    parts = [] if real is None else [real[s : s + size] for s in starts]
    batches = [inputs for inputs, _ in data.batches(size)]
    return [Batch(x, parts[n] if parts else None) for n, x in enumerate(batches)]


@contextmanager
def plain_attention() -> Iterator[None]:
    """Encoder layers run their linear layers one by one instead of as one fused function."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
