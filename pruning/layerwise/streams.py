"""The dense and the pruned network side by side, each batch of each waiting where it is.

Both go through the network together. Before a layer is solved every batch of both waits before it,
so that the moments of its inputs are those of networks whose earlier layers are done; then the
pruned network goes on with the new weights, the dense one with the old.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from pruning.curvature.layers.matrix import Part, part_of
from pruning.layerwise.moments import Moments
from pruning.layerwise.order import Stage
from pruning.layerwise.passes import Call, Pass
from pruning.layerwise.residence import Originals, Residence
from pruning.layerwise.shelf import Shelf
from pruning.layerwise.watch import Use, Watch


@dataclass
class Batch:
    """Inputs of one batch, and which of its tokens are no padding."""

    inputs: tuple[Tensor, ...]
    real: Tensor | None


@dataclass
class _Pair:
    """One batch in both networks, either of which may be missing; `used` by the dense one."""

    batch: Batch
    dense: Pass | None = None
    pruned: Pass | None = None
    used: set[str] = field(default_factory=set)

    @property
    def own(self) -> Pass:
        """In the network whose inputs the Gram matrix is made of."""
        found = self.pruned or self.dense
        assert found is not None
        return found

    @property
    def passes(self) -> list[Pass]:
        """Those there are."""
        return [p for p in (self.dense, self.pruned) if p is not None]


class Streams:
    """All batches in both networks.

    Args:
        module: The network, whose weights become the pruned ones.
        weights: In scope, by name.
        batches: Calibration data.
        residence: Runs the calls.
        shelf: Takes the activations of waiting batches.
        dense: Whether the dense network is wanted.
        pruned: Whether the pruned network is wanted.

    Attributes:
        notes: What did not go as the first batch went.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Mapping[str, Tensor],
        batches: list[Batch],
        residence: Residence,
        shelf: Shelf,
        *,
        dense: bool,
        pruned: bool,
    ) -> None:
        self.module, self.watch, self.residence = module, Watch(weights), residence
        self.batches, self.shelf = batches, shelf
        self.dense, self.pruned = dense, pruned
        self.originals, self.lasting = Originals(), False
        self.notes: list[str] = []
        self._left = set(weights)
        self._stack = ExitStack()
        self._pairs = [self._pair(batch, self._stack) for batch in batches]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stack.close()

    @torch.no_grad()
    def collect(self, stage: Stage, moments: Moments, drift: bool) -> None:
        """Bring every batch to the stage, and add its inputs to the moments.

        Args:
            stage: Its weights are not solved yet.
            moments: Of the stage's inputs.
            drift: Whether what the stage's outputs are added to counts.
        """
        if stage.shared:
            for batch in self.batches:
                with ExitStack() as stack:
                    self._look_ahead(self._pair(batch, stack), stage, moments)
        for pair in self._pairs:
            for one in pair.passes:
                one.advance(self._unsolved)
            if not stage.shared:
                self._add(pair, stage, moments, drift)
            for one in pair.passes:
                one.wait()
        self._drop_originals()

    def replace(self, name: str, value: Tensor) -> None:
        """Write a solved weight, in its own dtype; the dense network keeps the old one."""
        weight = self.watch.weights[name]
        if self.dense and name not in self.originals.kept:
            self.originals.keep(name, weight)
        with torch.no_grad():
            weight.copy_(value)
        self.residence.forget()

    def go_on(self, done: Mapping[str, Tensor]) -> None:
        """These weights were replaced before the passes began; their dense values are given."""
        if self.dense:
            for name, dense in done.items():
                self.originals.keep(name, self.watch.weights[name], dense)
        self.finish(done)

    def finish(self, names: Iterable[str]) -> None:
        """These weights are done: no batch waits before them any more."""
        self._left.difference_update(names)

    def _pair(self, batch: Batch, stack: ExitStack) -> _Pair:
        pair = _Pair(batch)

        def used(call: Call, result: Any) -> None:
            pair.used.update(use.name for use in self.watch.uses(call))

        def started(originals: Originals | None) -> Pass:
            after = None if originals is None else used
            args = (batch.inputs, self.residence, self.shelf, originals, after)
            return stack.enter_context(Pass(self.module, *args))

        pair.dense = started(self.originals) if self.dense else None
        pair.pruned = started(None) if self.pruned else None
        return pair

    def _unsolved(self, call: Call) -> bool:
        return any(use.name in self._left for use in self.watch.uses(call))

    def _look_ahead(self, pair: _Pair, stage: Stage, moments: Moments) -> None:
        """Add all uses of a shared weight in a batch that starts afresh."""
        (name,) = stage.names
        last = -1

        def stop(call: Call) -> bool:
            return call.number > last and any(u.name == name for u in self.watch.uses(call))

        while (call := pair.own.advance(stop)) is not None:
            other = pair.dense.advance(stop) if pair.dense is not None else None
            uses = [use for use in self.watch.uses(call) if use.name == name]
            for use in uses:
                self._add_use(pair, stage, use, call, other, moments, {})
            last = call.number

    def _add(self, pair: _Pair, stage: Stage, moments: Moments, drift: bool) -> None:
        call, other = pair.own.call, None if pair.dense is None else pair.dense.call
        use = self._use(call, stage)
        if call is None or use is None:
            self.notes.append(f"{stage.names[0]}: a batch did not use it in its turn")
            return
        if pair.dense is not None and pair.pruned is not None and self._use(other, stage) != use:
            self.notes.append(f"{stage.names[0]}: the dense network did not use it in its turn")
            other = None
        found = {}
        if drift and pair.dense is not None and pair.pruned is not None and other is not None:
            for name in stage.names:
                seen = stage.sightings[name][0]
                first = stage.sightings[stage.names[0]][0]
                if seen.stream is None or not call.path == other.path == first.path:
                    continue
                there, here = pair.dense.made(*seen.stream), pair.pruned.made(*seen.stream)
                if there is not None and here is not None:
                    found[name] = (there, here)
        self._add_use(pair, stage, use, call, other, moments, found)

    def _use(self, call: Call | None, stage: Stage) -> Use | None:
        uses = [] if call is None else self.watch.uses(call)
        return next((use for use in uses if use.name in stage.forms), None)

    def _add_use(
        self,
        pair: _Pair,
        stage: Stage,
        use: Use,
        call: Call,
        other: Call | None,
        moments: Moments,
        found: dict[str, tuple[Tensor, Tensor]],
    ) -> None:
        part = part_of(call.func, *pair.own.arguments(call), use.index)
        dense: Part | None = None
        if pair.dense is not None and pair.pruned is not None and other is not None:
            dense = part_of(other.func, *pair.dense.arguments(other), use.index)
        groups = slice(None)
        if use.rows is not None:
            form = stage.forms[use.name]
            unit = form.shape[0] // form.groups
            groups = slice(use.rows[0] // unit, use.rows[1] // unit)
        real = self._real(pair.batch, stage, use, part)
        moments.add(part, dense, real, groups, found)

    def _real(self, batch: Batch, stage: Stage, use: Use, part: Part) -> Tensor | None:
        if batch.real is None:
            return None
        layout = next((s.layout for s in stage.sightings[use.name] if s.use == use), None)
        if layout is None:
            return None
        return layout.mask(batch.real.to(part.inputs.device), part.places)

    def _drop_originals(self) -> None:
        if self.lasting:
            return
        for name in list(self.originals.kept):
            if all(p.dense is None or p.dense.done or name in p.used for p in self._pairs):
                self.originals.drop(name)
