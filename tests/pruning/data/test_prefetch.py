"""Batches that a thread gathers are those that are gathered without one."""

import threading
import time

import pytest
import torch

from pruning.data.batches import ArrayData
from pruning.data.prefetch import AHEAD, prefetched

CPU = torch.device("cpu")


def data(labelled=True):
    g = torch.Generator().manual_seed(0)
    inputs = {"a": torch.randn(23, 2, 3, generator=g), "b": torch.arange(23)}
    return ArrayData(inputs, torch.arange(23) % 5 if labelled else None)


def threads():
    return [t for t in threading.enumerate() if t.name == "batches"]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("size", [1, 5, 23, 100])
def test_batches_are_the_samples_in_their_order(ahead, labelled, size):
    samples = data(labelled)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(1))[:20]
    found = list(prefetched(samples, order, size, CPU, ahead=ahead))
    assert [len(inputs[0]) for inputs, _ in found] == [len(o) for o in order.split(size)]
    for (inputs, target), index in zip(found, order.split(size), strict=True):
        wanted = samples.select(index)
        assert all(torch.equal(a, b) for a, b in zip(inputs, wanted.inputs.values(), strict=True))
        assert (target is None) == (not labelled)
        assert target is None or torch.equal(target, wanted.target)
    assert not threads()


def test_what_the_thread_raises_reaches_the_caller():
    order = torch.tensor([0, 1, 2, 99])
    batches = prefetched(data(), order, 2, CPU, ahead=True)
    assert torch.equal(next(batches)[0][1], torch.tensor([0, 1]))
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        next(batches)
    assert not threads()


def test_the_thread_ends_with_an_iteration_that_is_abandoned():
    batches = prefetched(data(), torch.arange(23), 1, CPU, ahead=True)
    next(batches)
    assert len(threads()) == 1
    batches.close()
    assert not threads()


def test_the_thread_ends_when_the_consumer_fails():
    def consume():
        for _ in prefetched(data(), torch.arange(23), 1, CPU, ahead=True):
            raise KeyError

    with pytest.raises(KeyError):
        consume()
    deadline = time.monotonic() + 10
    while threads() and time.monotonic() < deadline:
        threads()[0].join(0.1)
    assert not threads()


def test_no_more_batches_wait_than_were_agreed(monkeypatch):
    taken = []
    original = torch.Tensor.index_select

    def counting(self, dim, index):
        taken.append(len(index))
        return original(self, dim, index)

    samples = ArrayData({"x": torch.zeros(50, 2)})
    monkeypatch.setattr(torch.Tensor, "index_select", counting)
    batches = prefetched(samples, torch.arange(50), 1, CPU, ahead=True)
    for number in range(1, 50):
        next(batches)
        # One is handed over, some wait, and one may be in the thread's hands.
        assert len(taken) <= number + AHEAD + 1
    batches.close()


def test_small_batches_on_a_cpu_are_gathered_without_a_thread():
    next(iter(prefetched(data(), torch.arange(23), 5, CPU)))
    assert not threads()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_batches_on_a_gpu_are_the_samples_in_their_order(where):
    samples = ArrayData({"x": torch.randn(4096, 256)}, torch.arange(4096))
    order = torch.randperm(4096)
    batches = prefetched(samples.to(where), order, 100, torch.device("cuda"))
    for (inputs, target), index in zip(batches, order.split(100), strict=True):
        torch.randn(2048, 2048, device="cuda").matmul(torch.randn(2048, 2048, device="cuda"))
        assert torch.equal(inputs[0].cpu(), samples.inputs["x"][index])
        assert torch.equal(target.cpu(), index)
