"""The norm of what each weight is multiplied with: |x_j|_2 over samples and positions.

For a fully connected layer x_j is input feature j over all samples (and tokens); for a convolution
it is the input as the kernel sees it, one row a sample and output position (im2col), padding and
stride included, each group with its own channels. A weight that several layers share sees them all.
The inputs of weights of other kinds (attention, recurrent and transposed layers) are collected on a
walk through the network (`pruning.layerwise`). Padding counts for nothing
(`pruning.evidence.layer_inputs`); all else that a layer sees does, also a prompt whose labels are
ignored: context is data here.
"""

import torch
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.evidence.layer_inputs import counted, listen
from pruning.evidence.view import View, layers_of
from pruning.layers import Prunable
from pruning.layerwise.collected import Collected
from pruning.layerwise.walk import Options, walk
from pruning.scope import DESCRIBED


def compute(view: View) -> Tensor:
    """|x_j|_2 for the input j of each active weight, shape [A], summed in float64.

    Raises:
        SecateurError: `operator_unsupported` for a layer whose weight is used past its forward, so
            that no input is seen, or for a weight that is used as no matrix.
    """
    weights, module = view.network.weights, view.network.module
    squares = [torch.zeros(p.weight.shape, dtype=torch.float64, device=weights.device)
               for p in weights.layers]  # fmt: skip

    def hear(number: int, layer: nn.Module, x: Tensor) -> None:
        squares[number] += _squares(layer, x.double())

    others = [p for p in weights.layers if p.kind not in DESCRIBED]
    walked = _walked(view, others) if others else {}
    layers = [(n, x) for n, x in layers_of(module, weights) if weights.layers[n].kind in DESCRIBED]
    seen = listen(module, layers, view.data, view.loss, hear, weights.device)
    for number, layer in layers:
        if layer not in seen:
            name = weights.layers[number].layer
            raise SecateurError(
                "operator_unsupported",
                f"The inputs of layer {name} are not seen: the network uses its weight elsewhere "
                "than in the layer's own forward pass.",
                where=name,
                hint="Exclude the layer from the scope, or use another criterion.",
            )
    for number, p in enumerate(weights.layers):
        if p.name in walked:
            squares[number] = walked[p.name]
    return torch.cat([s.flatten() for s in squares]).sqrt()[view.active]


def _walked(view: View, weights: list[Prunable]) -> dict[str, Tensor]:
    """Sums of squared inputs in the shape of each weight, by its name."""
    found: dict[str, Tensor] = {}

    def look(layer: Collected) -> None:
        sums = layer.gram.diagonal(dim1=1, dim2=2) * layer.columns
        spread = sums[:, None, :].expand_as(layer.aim)
        found[layer.prunable.name] = layer.as_weight(spread).to(view.active.device)

    real = counted(view.data, view.loss)
    walk(view.network.module, weights, view.data, look, Options(aim="weights"), real=real)
    return found


def _squares(layer: nn.Module, x: Tensor) -> Tensor:
    """Sums of squared inputs in the shape of the layer's weight (broadcast over its rows)."""
    if isinstance(layer, nn.Linear):
        return x.square().reshape(-1, x.shape[-1]).sum(0)
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return _convolution(layer, x)
    raise TypeError(f"no inputs known of {type(layer).__name__}")


def _convolution(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """Squared inputs, unfolded: the strided windows of the padded input, summed over positions."""
    dims = len(layer.kernel_size)
    if x.ndim == dims + 1:
        x = x[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    # The layer's own record of its padding, last dimension first, which also resolves "same".
    padded = nn.functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    windows = padded.square()
    for d in range(dims):
        kernel, dilation, stride = layer.kernel_size[d], layer.dilation[d], layer.stride[d]
        # A window of the dilated extent, of which every dilation-th entry meets the kernel.
        windows = windows.unfold(2 + d, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    positions = [0, *range(2, 2 + dims)]
    channels = windows.sum(positions)  # [C_in, *kernel]
    inner = channels.shape[0] // layer.groups
    grouped = channels.reshape(layer.groups, inner, *channels.shape[1:])
    return grouped.repeat_interleave(layer.weight.shape[0] // layer.groups, 0)
