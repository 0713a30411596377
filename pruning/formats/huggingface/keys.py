"""What a value of config.json may be: one check a kind of value. Torch-free."""

import math
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]


class TooLargeError(Exception):
    """A number over its bound; `args` are what is allowed at most."""


def whole(low: int, high: int) -> Check:
    """An integer of [low, high]; True and False are none."""

    def check(value: Any) -> bool:
        if type(value) is int and value > high:
            raise TooLargeError(high)
        return type(value) is int and value >= low

    return check


def real(low: float, high: float) -> Check:
    """A finite number of [low, high]."""

    def check(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and low <= value <= high

    return check


def positive(high: float) -> Check:
    """A finite number above 0."""

    def check(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and 0 < value <= high

    return check


def one_of(*allowed: Any) -> Check:
    """One of a few values; 0 is not False."""

    def check(value: Any) -> bool:
        return any(type(value) is type(known) and value == known for known in allowed)

    return check


def optional(inner: Check) -> Check:
    """A value that is null, or what `inner` takes."""

    def check(value: Any) -> bool:
        return value is None or inner(value)

    return check


def truth(value: Any) -> bool:
    """A truth value."""
    return isinstance(value, bool)


def pad(value: Any) -> bool:
    """An integer or null; whether it is a token shows when the vocabulary is known."""
    return value is None or type(value) is int


def attention_kinds(value: Any) -> bool:
    """Each layer's kind of attention."""
    kinds = ("full_attention", "sliding_attention")
    return isinstance(value, list) and len(value) <= LAYERS_MOST and all(v in kinds for v in value)


LAYERS_MOST = 200
vocabulary = whole(1, 1_000_000)
width = whole(1, 65_536)
inner_width = whole(1, 524_288)
layers = whole(1, LAYERS_MOST)
heads = whole(1, 1_024)
positions = whole(1, 1_048_576)
share = real(0.0, 0.999)
epsilon = positive(1.0)
activation = one_of(
    "gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "gelu_accurate",
    "quick_gelu", "relu", "relu6", "silu", "swish", "tanh", "sigmoid", "linear", "mish",
)  # fmt: skip
