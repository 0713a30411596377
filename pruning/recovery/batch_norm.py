"""The running statistics of BatchNorm layers, measured anew; no weight is trained."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.errors import SecateurError
from pruning.recovery.setting import Setting
from pruning.spec import BatchNorm


@dataclass
class Pooled:
    """Mean and squared deviations by channel over all that was added, in float64.

    Chan, Golub, LeVeque 1983, eq. 2.1: M2 = M2a + M2b + (mean_b - mean_a)^2 n_a n_b / (n_a + n_b).
    """

    count: int = 0
    mean: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, x: Tensor) -> None:
        """Add a layer's input, [N, C, ...]."""
        axes = [a for a in range(x.ndim) if a != 1]
        variance, mean = (t.double() for t in torch.var_mean(x.detach(), axes, correction=0))
        new = x.numel() // x.shape[1]
        total, gap = self.count + new, mean - self.mean
        self.squares = self.squares + variance * new + gap.square() * (self.count * new / total)
        self.mean = self.mean + gap * (new / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """With n - 1, as BatchNorm keeps it."""
        assert isinstance(self.squares, Tensor)
        return self.squares / max(1, self.count - 1)


def normalised(module: nn.Module) -> list[_BatchNorm]:
    """The layers that keep statistics.

    Raises:
        SecateurError: `spec_conflict` where there are none.
    """
    layers = [
        m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None
    ]
    if not layers:
        raise SecateurError(
            "spec_conflict",
            "The model has no BatchNorm layer that keeps running statistics.",
            where="spec.recovery.kind",
            hint="Exporters may fold it into the layer before: export in training mode, or use "
            "recovery {kind: fine_tune}.",
        )
    return layers


@torch.no_grad()
def recover(setting: Setting, options: BatchNorm) -> list[str]:
    """Set mean and variance of each layer's inputs over all training samples.

    One pass over the data: a batch is normalised by its own statistics, as in training, and what a
    layer sees is pooled over the batches, whatever their sizes. Samples come in a seeded order, so
    that sorted data do not make odd batches; Dropout stays off.

    Args:
        setting: Module, data and mask.
        options: The spec's part.

    Raises:
        SecateurError: `spec_conflict` without such layers, `data_empty` with fewer than two
            samples, `loss_non_finite` where a statistic is not finite.
    """
    module, data = setting.module, setting.data
    layers = normalised(module)
    if data.samples < 2:
        raise SecateurError(
            "data_empty",
            "Statistics of batches need two training samples or more.",
            where="data.training",
            hint="Give more training data.",
        )
    pooled = [Pooled() for _ in layers]
    device = next(module.parameters()).device
    order = torch.randperm(data.samples, generator=torch.Generator().manual_seed(setting.seed))
    counters = [layer.num_batches_tracked for layer in layers]
    before = [None if c is None else c.clone() for c in counters]
    module.eval()
    with ExitStack() as stack:
        for layer, sums in zip(layers, pooled, strict=True):
            layer.train()

            def see(_: nn.Module, inputs: tuple[Any, ...], sums: Pooled = sums) -> None:
                sums.add(inputs[0])

            stack.callback(layer.register_forward_pre_hook(see).remove)
        done = 0
        for index in _cut(order, options.batch_size):
            inputs = (x.index_select(0, index.to(x.device)) for x in data.inputs.values())
            module(*(x.to(device) for x in inputs))
            done += len(index)
            if setting.progress is not None:
                setting.progress(done, data.samples)
    module.eval()
    for layer, sums, counter, old in zip(layers, pooled, counters, before, strict=True):
        _set(layer, sums)
        if counter is not None and old is not None:
            counter.copy_(old)
    return []


def _cut(order: Tensor, size: int) -> list[Tensor]:
    """Batches of `size`; a last sample by itself goes to the batch before it."""
    parts = list(order.split(size))
    if len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _set(layer: _BatchNorm, sums: Pooled) -> None:
    if sums.count == 0:  # the network does not call it
        return
    assert layer.running_mean is not None
    assert layer.running_var is not None
    for statistic, value in ((layer.running_mean, sums.mean), (layer.running_var, sums.variance)):
        assert isinstance(value, Tensor)
        if not bool(torch.isfinite(value).all()):
            raise SecateurError(
                "loss_non_finite",
                "The inputs of a BatchNorm layer are not finite on the training data.",
                where="spec.recovery",
                hint="Check the data's scale, and the model's outputs for overflow.",
            )
        statistic.copy_(value)
