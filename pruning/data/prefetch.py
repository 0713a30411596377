"""The next batches are gathered by a thread while the device computes."""

import queue
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from pruning.data.batches import ArrayData, Batch
from pruning.threads import cores

AHEAD = 2
"""Batches that wait at most."""

WORTHWHILE = 1 << 20
"""Bytes of a batch from which a thread on the CPU gains more than handing over costs."""


def prefetched(
    data: ArrayData,
    order: Tensor,
    batch_size: int,
    device: torch.device,
    *,
    ahead: bool | None = None,
) -> Iterator[Batch]:
    """The samples at `order`, `batch_size` at a time; the last batch may be smaller.

    Batches and their order are the same with a thread and without. The thread ends with the
    iteration, also with one that is abandoned, and what it raises is raised here.

    Args:
        data: Samples and targets.
        order: Indices of samples, on the CPU.
        batch_size: Samples a batch.
        device: Where the batches shall lie.
        ahead: Whether a thread gathers; where it is not said, it does for a GPU that the data do
            not lie on, and on a CPU for large batches where a core is free.
    """
    gather = _Gather(data, order, batch_size, device)
    if ahead is None:
        ahead = gather.worthwhile()
    return gather.by_thread() if ahead else map(gather, range(len(gather)))


class _Gather:
    """Batch number n, as a function."""

    def __init__(
        self, data: ArrayData, order: Tensor, batch_size: int, device: torch.device
    ) -> None:
        self.tensors = [*data.inputs.values()]
        self.labelled = data.target is not None
        if data.target is not None:
            self.tensors.append(data.target)
        self.size, self.device = batch_size, device
        self.order = order.to(self.tensors[0].device)
        # Copies of pinned memory need not wait for, and run beside, what the GPU computes.
        self.pinned = device.type == "cuda" and self.tensors[0].device.type == "cpu"
        self.stream = torch.cuda.Stream(device) if self.pinned else None

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def worthwhile(self) -> bool:
        """Whether a thread makes it faster."""
        if self.device.type == "cuda":
            return self.pinned
        first = [t[:1] for t in self.tensors]
        large = self.size * sum(t.numel() * t.element_size() for t in first) >= WORTHWHILE
        return large and len(self) > 1 and torch.get_num_threads() < cores()

    def __call__(self, number: int) -> Batch:
        index = self.order[number * self.size : (number + 1) * self.size]
        return self._batch([self._moved(t, index) for t in self.tensors])

    def _batch(self, tensors: list[Tensor]) -> Batch:
        return (tuple(tensors[:-1]), tensors[-1]) if self.labelled else (tuple(tensors), None)

    def _moved(self, tensor: Tensor, index: Tensor) -> Tensor:
        if not self.pinned:
            return tensor.index_select(0, index).to(self.device)
        shape = (len(index), *tensor.shape[1:])
        waiting = torch.empty(shape, dtype=tensor.dtype, pin_memory=True)
        torch.index_select(tensor, 0, index, out=waiting)
        return waiting.to(self.device, non_blocking=True)

    def by_thread(self) -> Iterator[Batch]:
        """All batches, gathered ahead."""
        waiting: queue.Queue[tuple[Batch, torch.cuda.Event | None] | BaseException | None]
        waiting = queue.Queue(AHEAD)
        over = threading.Event()

        def put(item: tuple[Batch, torch.cuda.Event | None] | BaseException | None) -> None:
            while not over.is_set():
                try:
                    waiting.put(item, timeout=0.1)
                except queue.Full:
                    continue
                return

        def work() -> None:
            try:
                for number in range(len(self)):
                    if over.is_set():
                        return
                    put(self._ready(number))
                put(None)
            except BaseException as error:
                put(error)

        thread = threading.Thread(target=work, name="batches", daemon=True)
        thread.start()
        try:
            while (item := waiting.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield self._received(*item)
        finally:
            over.set()
            thread.join()

    def _ready(self, number: int) -> tuple[Batch, torch.cuda.Event | None]:
        if self.stream is None:
            return self(number), None
        with torch.cuda.stream(self.stream):
            batch = self(number)
            event = torch.cuda.Event()
            event.record(self.stream)
        return batch, event

    def _received(self, batch: Batch, event: torch.cuda.Event | None) -> Batch:
        """The batch, once its copies are done as seen by what is computed from now on."""
        if event is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(event)
            inputs, target = batch
            for tensor in (*inputs, *([] if target is None else [target])):
                # Its memory may not be given away while that stream still reads it.
                tensor.record_stream(stream)
        return batch
