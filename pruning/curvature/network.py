"""A module as a function of its weights in scope, for torch.func."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from pruning.curvature.derivatives import CODE, WITHOUT, reason
from pruning.curvature.whereabouts import named, watching
from pruning.errors import SecateurError
from pruning.functional import called_with
from pruning.layers import FlatWeights
from pruning.memory_errors import out_of_memory
from pruning.recurrence import unrolled

Parameters = dict[str, Tensor]


class Network:
    """f(x; w) with w the weights in scope; all other parameters and buffers are constants.

    Args:
        module: In evaluation mode, so that BatchNorm is a fixed affine map and Dropout is off;
            per-sample quantities have no meaning otherwise.
        weights: The weights in scope.
        progress: Called with (samples done, samples in all) while curvature accumulates.
        general: Where names of weights are put for which there is no short way; see below.
        cut_off: Names of weights that no gradient reaches though the outputs depend on them.

    Attributes:
        general: Names of weights whose squared derivatives took the general per-sample path, since
            no layer kind describes how the module uses them: the same numbers, more slowly.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: FlatWeights,
        progress: Callable[[int, int], None] | None = None,
        general: set[str] | None = None,
        cut_off: Collection[str] = (),
    ) -> None:
        if any(m.training for m in module.modules()):
            raise ValueError("curvature is defined in evaluation mode: call module.eval() first")
        self.module, self.weights = module, weights
        self.general = set() if general is None else general
        self.progress = progress or (lambda done, total: None)
        self.cut_off = cut_off

    def parameters(self) -> Parameters:
        """The present weights in scope, by parameter name, outside any graph."""
        return {p.name: p.weight.detach() for p in self.weights.layers}

    def named(self, flat: Tensor) -> Parameters:
        """A flat vector as a change of the parameters, in each parameter's dtype."""
        parts = self.weights.by_layer(flat)
        return {p.name: part.to(p.weight.dtype) for p, part in parts}

    def outputs(
        self, parameters: Parameters, inputs: tuple[Tensor, ...], *, once: bool = False
    ) -> Tensor:
        """f(x; w) for a batch; the first output where there are several.

        Args:
            parameters: The weights in scope.
            inputs: A batch.
            once: Whether derivatives are taken once and backwards only, outside torch.func, so
                that fused kernels will do.

        Raises:
            SecateurError: `operator_unsupported` naming a layer that can't run under torch.func, or
                that no gradient reaches.
        """
        self.check_reached()
        try:
            return self._called(parameters, inputs, once)
        except (RuntimeError, NotImplementedError) as error:
            if out_of_memory(error):
                raise
            raise self._refusal(parameters, inputs, once, error) from error

    def check_reached(self) -> None:
        """Refuses derivatives by weights that no gradient reaches.

        Raises:
            SecateurError: `operator_unsupported`, naming the first one.
        """
        lost = [p.name for p in self.weights.layers if p.name in self.cut_off]
        if lost:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise SecateurError(
                CODE,
                f"No gradient reaches {lost[0]}{more}, though the outputs depend on it: forward "
                "runs layers under torch.no_grad(), detaches what they put out, takes .data, or "
                "goes on with the place of the largest (argmax).",
                where=lost[0],
                hint="Let gradients through in evaluation mode, exclude these layers from the "
                "scope, or use magnitude, wanda or layer-wise pruning, which need no gradients. A "
                "file made by `secateur export` has no borders of no_grad, detach and .data.",
            )

    def _called(self, parameters: Parameters, inputs: tuple[Tensor, ...], once: bool) -> Tensor:
        # On other devices the fused backward pass may sum in any order, and results must repeat.
        fused = once and self.weights.device.type == "cpu"
        with attention(fused=fused), unrolled():
            return first_output(called_with(self.module, parameters, inputs))

    def _refusal(
        self, parameters: Parameters, inputs: tuple[Tensor, ...], once: bool, error: Exception
    ) -> SecateurError:
        with watching(self.module) as stack:
            try:
                self._called(parameters, inputs, once)
            except (RuntimeError, NotImplementedError):
                place, words = named(stack)
            else:
                place, words = "", "the module"
        return SecateurError(
            CODE,
            f"Derivatives sample by sample can't be taken through {words}: {reason(error)}",
            where=place or None,
            hint=WITHOUT + _of_hooks(self.module),
        )

    def saved_bytes(self, inputs: tuple[Tensor, ...]) -> int:
        """Bytes that one sample's forward pass keeps for its backward pass, weights aside.

        Args:
            inputs: One sample, with batch dimension.
        """
        parameters = {k: v.requires_grad_() for k, v in self.parameters().items()}
        # Inputs may be views of a whole data set, which no batch adds to.
        tensors = (*self.module.parameters(), *self.module.buffers(), *inputs)
        own = {t.untyped_storage().data_ptr() for t in tensors}
        saved: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
            output = self.outputs(parameters, inputs)
        return sum(saved.values()) + sum(t.nbytes for t in (output, *inputs))

    def output(self, parameters: Parameters, inputs: tuple[Tensor, ...]) -> Tensor:
        """f(x; w) for one sample without batch dimension."""
        return self.outputs(parameters, tuple(x[None] for x in inputs))[0]


def _of_hooks(module: nn.Module) -> str:
    """What helps where hooks on gradients are in the way."""
    for path, part in module.named_modules():
        if part._backward_hooks or part._backward_pre_hooks:
            return f" Or remove the backward hooks, such as that of {path or 'the module'}."
    return ""


@contextmanager
def attention(*, fused: bool) -> Iterator[None]:
    """Attention that can be differentiated.

    Args:
        fused: Whether fused kernels may be used; they have no second or forward derivatives.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with nullcontext() if fused else sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def first_output(result: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """The output that the loss refers to."""
    return result if isinstance(result, Tensor) else result[0]
