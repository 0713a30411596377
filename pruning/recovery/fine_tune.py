"""Fine-tuning of the survivors under the mask."""

import hashlib
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from pruning.curvature.losses import Loss, required
from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.recovery.masking import Masking
from pruning.spec import SGD, Adam, AdamW, FineTune


def recover(
    module: nn.Module,
    data: ArrayData,
    loss: Loss,
    masking: Masking,
    options: FineTune,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Train all parameters that require gradients; removed weights stay exactly zero.

    The order of the samples and what Dropout draws follow from `seed` alone, and the optimizer
    starts afresh, so a round can be repeated on its own. The module is in training mode meanwhile
    and in evaluation mode afterwards. A last batch of one sample is left out where BatchNorm
    could not normalise it.

    Args:
        module: Trained in place.
        data: Samples and targets.
        loss: The loss of one sample; its mean over the batch is minimised.
        masking: The removed weights.
        options: Epochs, batch size and optimizer.
        seed: Of this round; see `round_seed`.
        progress: Called with (batches done, batches in all).

    Raises:
        SecateurError: `loss_non_finite` if training diverges, `spec_conflict` where nothing could
            be trained, or what `loss.check` raises.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise SecateurError(
            "spec_conflict",
            "Every parameter of the module is frozen (requires_grad is false).",
            where="spec.recovery",
            hint="Set requires_grad on what shall be trained, or use recovery {kind: none}.",
        )
    optimizer = make_optimizer(options.optimizer, trained)
    device = trained[0].device
    lone = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
    if lone and min(options.batch_size, data.samples) == 1:
        raise SecateurError(
            "spec_conflict",
            "Batches of one sample can't train a model with BatchNorm, which normalises by what "
            "the samples of a batch have in common.",
            where="spec.recovery.batch_size",
            hint="Use a batch_size of 2 or more, on 2 training samples or more.",
        )
    batches = -(-data.samples // options.batch_size) * options.epochs
    order = torch.Generator().manual_seed(seed)
    done = 0
    module.train()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(seed)
        for epoch in range(options.epochs):
            for inputs, target in data.batches(options.batch_size, order, device):
                done += 1
                if lone and len(inputs[0]) == 1:
                    continue
                optimizer.zero_grad(set_to_none=True)
                outputs = first_output(module(*inputs))
                loss.check(outputs, target)
                value = loss.samples(outputs, required(target, loss)).mean()
                if not bool(torch.isfinite(value)):
                    raise SecateurError(
                        "loss_non_finite",
                        f"The training loss became {float(value.detach())} in epoch {epoch + 1}.",
                        where="spec.recovery.optimizer.lr",
                        hint="Use a smaller learning rate.",
                    )
                value.backward()
                masking.step(optimizer)
                if progress is not None:
                    progress(done, batches)
    optimizer.zero_grad(set_to_none=True)
    module.eval()


def make_optimizer(options: SGD | Adam | AdamW, parameters: list[nn.Parameter]) -> Optimizer:
    """The torch optimizer that the spec describes."""
    if isinstance(options, SGD):
        return torch.optim.SGD(
            parameters,
            lr=options.lr,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
        )
    kind = torch.optim.Adam if isinstance(options, Adam) else torch.optim.AdamW
    return kind(parameters, lr=options.lr, weight_decay=options.weight_decay)


def round_seed(seed: int, number: int) -> int:
    """A seed for one round, unrelated to those of other rounds and seeds."""
    digest = hashlib.sha256(f"recovery:{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
