"""Trigonometric and hyperbolic functions and their inverses."""

import torch

from pruning.formats.onnx.ops.dispatch import elementwise

OPERATORS = {
    "Tan": elementwise(torch.tan),
    "Asin": elementwise(torch.asin),
    "Acos": elementwise(torch.acos),
    "Atan": elementwise(torch.atan),
    "Sinh": elementwise(torch.sinh),
    "Cosh": elementwise(torch.cosh),
    "Asinh": elementwise(torch.asinh),
    "Acosh": elementwise(torch.acosh),
    "Atanh": elementwise(torch.atanh),
}
