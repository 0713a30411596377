"""Operators of the standard that are refused for what they do, with what to do instead."""

from pruning.errors import SecateurError
from pruning.formats.onnx.builder import Builder, Node

_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
           "RandomUniformLike")  # fmt: skip
_QUANTISED = (
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv",
    "QLinearMatMul", "QuantizeLinear",
)  # fmt: skip


def _random(node: Node, builder: Builder) -> None:
    raise _refusal(
        node, "draws random numbers", "Export the network in evaluation mode, without sampling."
    )


def _quantised(node: Node, builder: Builder) -> None:
    raise _refusal(
        node,
        "belongs to a quantised network",
        "Export the float model, prune it, and quantise the result.",
    )


def _refusal(node: Node, why: str, hint: str) -> SecateurError:
    return SecateurError(
        "operator_unsupported",
        f"{node.operator} {why}, which is not read.",
        where=node.label,
        hint=hint,
        operators=[node.operator],
    )


OPERATORS = {
    **dict.fromkeys(_RANDOM, _random),
    **dict.fromkeys(_QUANTISED, _quantised),
}
