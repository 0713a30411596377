"""The loop over epochs and steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from pruning.data.batches import Batch
from pruning.data.prefetch import prefetched
from pruning.errors import SecateurError
from pruning.metrics import evaluate
from pruning.recovery import snapshot
from pruning.recovery.early_stop import Best, split
from pruning.recovery.objective import Objective
from pruning.recovery.precision import Precision
from pruning.recovery.rates import factor
from pruning.recovery.setting import At, Setting
from pruning.spec import SGD, Adam, FineTune

WATCHED = 50
"""Steps after which the loss is looked at, for which a GPU has to be waited for."""


@dataclass(frozen=True)
class Trained:
    """Epochs that were done, and the one whose weights were kept."""

    epochs: int
    best: int


def train(setting: Setting, options: FineTune, objective: Objective) -> Trained:
    """Train all parameters that require gradients.

    The order of the samples and what Dropout draws follow from `setting.seed` alone, and the
    optimizer starts afresh, so a round can be repeated on its own; one that goes on from
    `setting.saved` gives the same bits. A last batch of one sample is left out where BatchNorm
    could not normalise it.

    Args:
        setting: Module, data, and what holds the weights back.
        options: The spec's part.
        objective: What is minimised.

    Raises:
        SecateurError: `loss_non_finite` if training diverges, `spec_conflict` where nothing can be
            trained or not as asked, or what `loss.check` raises.
    """
    module = setting.module
    training = _Training(setting, options, objective)
    devices = [training.device] if training.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad(), _prepared(module, options):
        torch.manual_seed(setting.seed)
        done = training.run()
    training.optimizer.zero_grad(set_to_none=True)
    setting.constraint.end(training.optimizer)
    training.optimizer.state.clear()  # what else the job does shall not wait for it to be collected
    return done


class _Training:
    def __init__(self, setting: Setting, options: FineTune, objective: Objective) -> None:
        self.setting, self.options, self.objective = setting, options, objective
        self.parameters = [p for p in setting.module.parameters() if p.requires_grad]
        if not self.parameters:
            raise SecateurError(
                "spec_conflict",
                "Every parameter of the module is frozen (requires_grad is false).",
                where="spec.recovery",
                hint="Set requires_grad on what shall be trained, or use recovery {kind: none}.",
            )
        self.device = self.parameters[0].device
        self.precision = Precision(options.precision, self.device)
        self.optimizer = make_optimizer(options, self.parameters)
        self.index: Tensor | None = None
        self.best: Best | None = None
        if options.early_stop is not None:
            share, seed = options.early_stop.share, setting.split_seed
            self.index, self.held = split(
                setting.data, share, setting.seed if seed is None else seed
            )
            self.best = Best(options.early_stop)
        self.samples = setting.data.samples if self.index is None else len(self.index)
        self.least = least_part(setting.module, options)
        self._check_parts()
        self.steps = -(-self.samples // options.batch_size)
        self.total = self.steps * options.epochs

    def _check_parts(self) -> None:
        options = self.options
        if min(options.batch_size // options.accumulate, self.samples) < self.least:
            raise SecateurError(
                "spec_conflict",
                "Batches of one sample can't train a model with BatchNorm, which normalises by "
                "what the samples of a batch, or of a part of it, have in common.",
                where="spec.recovery.batch_size",
                hint="Use a batch_size of 2 or more for each part of accumulate, on as many "
                "training samples; or batch_norm: freeze.",
            )

    def run(self) -> Trained:
        """All epochs that are left; the module ends at the best one's weights."""
        setting, options = self.setting, self.options
        order = torch.Generator().manual_seed(setting.seed)
        parts = (setting.module, self.optimizer, self.precision, order, self.best)
        found = None if setting.saved is None else setting.saved.find()
        epoch = setting.first if found is None else snapshot.put_back(found, *parts)
        del found
        setting.constraint.begin()
        while epoch < options.epochs and not (self.best and self.best.over):
            self._epoch(epoch, order)
            epoch += 1
            if self.best is not None:
                self._look(epoch)
            if setting.saved is not None and setting.saved.due():
                setting.saved.keep(*snapshot.take(epoch, *parts))
        if self.best is not None:
            self.best.restore(setting.module)
        self._check_weights()
        best = epoch if self.best is None else self.best.epoch
        return Trained(epoch - setting.first, best - setting.first)

    def _epoch(self, epoch: int, order: torch.Generator) -> None:
        setting, size = self.setting, self.options.batch_size
        drawn = torch.randperm(self.samples, generator=order)
        drawn = drawn if self.index is None else self.index[drawn]
        losses = torch.zeros((), device=self.device)
        step = epoch * self.steps
        for batch in prefetched(setting.data, drawn, size, self.device):
            if len(batch[0][0]) >= self.least:
                losses += self._step(batch, step, check=epoch == setting.first)
            step += 1
            if step % WATCHED == 0 or step == (epoch + 1) * self.steps:
                if not bool(torch.isfinite(losses)):
                    raise _diverged(f"The training loss became {float(losses)}", epoch)
                losses.zero_()
            if setting.progress is not None:
                setting.progress(step, self.total)

    def _step(self, batch: Batch, step: int, *, check: bool) -> Tensor:
        """One step of the optimizer; the mean loss of the batch, on the device."""
        setting, optimizer, precision = self.setting, self.optimizer, self.precision
        rate = self.options.optimizer.lr * factor(self.options.rates, step, self.total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        at = At(step, self.total, rate)
        optimizer.zero_grad(set_to_none=True)
        count = len(batch[0][0])
        loss: Tensor | None = None
        for inputs, target in self._parts(batch):
            value = self.objective.value(
                setting.module, inputs, target, precision.autocast, check=check
            )
            if len(inputs[0]) < count:
                value = value * (len(inputs[0]) / count)
            precision.backward(value)
            loss = value.detach() if loss is None else loss + value.detach()
        assert loss is not None
        precision.unscale(optimizer)
        setting.constraint.gradients(at)
        if self.options.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.options.clip)
        precision.step(optimizer)
        setting.constraint.stepped(at)
        return loss

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        inputs, target = batch
        count = len(inputs[0])
        parts = max(1, min(self.options.accumulate, count // self.least))
        for number in range(parts):
            of = slice(number * count // parts, (number + 1) * count // parts)
            yield tuple(x[of] for x in inputs), None if target is None else target[of]

    def _look(self, epoch: int) -> None:
        """The loss on the held-out samples, in evaluation mode."""
        assert self.best is not None
        module = self.setting.module.eval()
        loss = evaluate(module, self.held, self.setting.loss).loss
        set_mode(module, self.options)
        self.best.see(module, loss, epoch)

    def _check_weights(self) -> None:
        if not all(bool(torch.isfinite(p.detach().sum())) for p in self.parameters):
            raise _diverged("A weight is NaN or infinite", self.options.epochs - 1)


def least_part(module: nn.Module, options: FineTune) -> int:
    """Samples that a forward pass needs: two where BatchNorm normalises by them."""
    norms = any(isinstance(m, _BatchNorm) for m in module.modules())
    return 2 if norms and options.batch_norm == "train" else 1


def make_optimizer(options: FineTune, parameters: list[nn.Parameter]) -> Optimizer:
    """The torch optimizer that the spec describes, each step of it one pass over the weights."""
    chosen = options.optimizer
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    if isinstance(chosen, SGD):
        return torch.optim.SGD(
            parameters,
            lr=chosen.lr,
            momentum=chosen.momentum,
            weight_decay=chosen.weight_decay,
            fused=fused,
        )
    kind = torch.optim.Adam if isinstance(chosen, Adam) else torch.optim.AdamW
    return kind(parameters, lr=chosen.lr, weight_decay=chosen.weight_decay, fused=fused)


def set_mode(module: nn.Module, options: FineTune) -> None:
    """Training mode, BatchNorm as the options say."""
    module.train()
    if options.batch_norm == "freeze":
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()


@contextmanager
def _prepared(module: nn.Module, options: FineTune) -> Iterator[None]:
    """Training mode meanwhile, evaluation mode afterwards."""
    set_mode(module, options)
    try:
        yield
    finally:
        module.eval()


def _diverged(words: str, epoch: int) -> SecateurError:
    return SecateurError(
        "loss_non_finite",
        f"{words} in epoch {epoch + 1}.",
        where="spec.recovery.optimizer.lr",
        hint="Use a smaller learning rate, or set recovery.clip.",
    )
