"""LSTM, GRU and RNN as torch's own recurrent layers, one a node.

ONNX packs the gates of one or two directions into W, R and B; each parameter of the layer is bound
to its part of them, in torch's order of gates. A GRU that resets before its product (Cho et al.
2014), which torch's layer can't compute, is built of linear layers.
"""

from typing import Any

from pruning.formats.onnx.binding import Layout
from pruning.formats.onnx.builder import Builder, Node
from pruning.formats.onnx.graph import Constant
from pruning.formats.onnx.ops.dispatch import reals, texts
from pruning.formats.onnx.ops.layers import plain
from pruning.formats.onnx.ops.sequences import GRU, LSTM, RNN, Gru, Sequence
from pruning.formats.onnx.parse import shown

# Where torch's gates lie among ONNX's: iofc and zrh in ONNX, ifgo and rzn in torch.
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_ACTIVATIONS = {
    "LSTM": ["sigmoid", "tanh", "tanh"],
    "GRU": ["sigmoid", "tanh"],
    "RNN": ["tanh"],
}
_ROLES = ("input weight", "recurrence weight", "bias")

Part = tuple[str, int, tuple[int, ...]]


def _recurrent(node: Node, builder: Builder) -> None:
    kind = node.operator
    direction = node.attributes.string("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise node.invalid(f"direction={direction!r}")
    directions = 2 if direction == "bidirectional" else 1
    relu = _check(node, kind, directions)
    first = bool(node.attributes.int("layout", 0))
    early = kind == "GRU" and not node.attributes.int("linear_before_reset", 0)
    weights = [_weight(node, builder, i) for i in (1, 2, 3)]
    w, r, b = weights
    gates = len(_ORDER[kind])
    hidden = node.attributes.int("hidden_size", r.shape[-1] if r and r.shape else 0)
    if w is None or r is None or len(w.shape) != 3:
        raise node.invalid("W and R must be given, with three axes")
    entries = w.shape[-1]
    shapes = [(directions, gates * hidden, entries), (directions, gates * hidden, hidden),
              (directions, 2 * gates * hidden)]  # fmt: skip
    for constant, shape, role in zip(weights, shapes, _ROLES, strict=True):
        if constant is not None and constant.shape != shape:
            raise node.invalid(f"a {role} of shape {list(constant.shape)} for {list(shape)}")
    if hidden < 1 or entries < 1:
        raise node.invalid("no hidden units or no inputs")
    options: dict[str, Any] = {"bias": b is not None, "bidirectional": directions == 2}
    layer: Sequence
    if early:
        layer = Gru(entries, hidden, **options)
    elif kind == "RNN":
        layer = plain(RNN, entries, hidden, nonlinearity="relu" if relu else "tanh", **options)
    else:
        layer = plain(LSTM if kind == "LSTM" else GRU, entries, hidden, **options)
    layer.arrange(reverse=direction == "reverse", batch_first=first)
    path = builder.place(layer, (w.source, b.source if b else None, node), kind.lower())
    for way in range(directions):
        for name, index, blocks in _parts(kind, way, b is not None, early=early):
            constant = weights[index - 1]
            assert constant is not None
            _bind(node, builder, f"{path}.{name}", constant, index, gates, blocks)
    _call(node, builder, path)


def _check(node: Node, kind: str, directions: int) -> bool:
    """Refuses what torch's layers do not compute; whether a plain layer's activation is Relu."""
    activations = [name.lower() for name in texts(node, "activations")]
    relu = kind == "RNN" and bool(activations) and set(activations) == {"relu"}
    expected = (["relu"] if relu else _ACTIVATIONS[kind]) * directions
    if activations and activations != expected:
        raise node.unsupported(f"activations {', '.join(map(shown, activations))}")
    if any([reals(node, "activation_alpha"), reals(node, "activation_beta")]):
        raise node.unsupported("activation_alpha or activation_beta")
    if node.attributes.float("clip") is not None:
        raise node.unsupported("clip")
    if kind == "LSTM" and node.attributes.int("input_forget", 0):
        raise node.unsupported("input_forget")
    if kind == "LSTM" and node.input(7):
        raise node.unsupported("peephole weights P", "Export an LSTM without peepholes.")
    return relu


def _weight(node: Node, builder: Builder, index: int) -> Constant | None:
    role = _ROLES[index - 1]
    if index != 3:
        builder.refuse_computed(node, node.input(index), role)
    constant = builder.constant(node.input(index))
    if node.input(index) and constant is None:
        raise node.unsupported(f"a {role} that is not a constant")
    return constant


def _parts(kind: str, way: int, bias: bool, *, early: bool) -> list[Part]:
    """Each parameter of one direction: its name, its input of the node, and its blocks there."""
    order, gates = _ORDER[kind], len(_ORDER[kind])
    if early:
        found: list[Part] = [
            (f"ways.{way}.input", 1, (0, 1, 2)),
            (f"ways.{way}.gates", 2, (0, 1)),
            (f"ways.{way}.new", 2, (2,)),
        ]
        weights: list[Part] = [(f"{name}.weight", i, blocks) for name, i, blocks in found]
        offsets: list[Part] = [
            (f"{name}.bias", 3, tuple(block + gates * (i - 1) for block in blocks))
            for name, i, blocks in found
        ]
    else:
        end = "_reverse" if way else ""
        names = (("ih", 1), ("hh", 2))
        weights = [(f"weight_{name}_l0{end}", i, order) for name, i in names]
        offsets = [
            (f"bias_{name}_l0{end}", 3, tuple(block + gates * (i - 1) for block in order))
            for name, i in names
        ]
    parts = [*weights, *offsets] if bias else weights
    return [
        (name, i, tuple(block + way * gates * (1 + (i == 3)) for block in blocks))
        for name, i, blocks in parts
    ]


def _bind(
    node: Node,
    builder: Builder,
    path: str,
    constant: Constant,
    index: int,
    gates: int,
    blocks: tuple[int, ...],
) -> None:
    """Makes a part of the tensor the parameter at `path`."""
    owner, _, leaf = path.rpartition(".")
    shape = tuple(getattr(builder.module.get_submodule(owner), leaf).shape)
    of = constant.shape[0] * gates * (1 + (index == 3))
    layout = Layout(constant.permutation, shape, 1.0, of, blocks)
    builder.bind(node, path, constant, layout, prunable=index != 3)


def _call(node: Node, builder: Builder, path: str) -> None:
    """The step: X, sequence_lens and the initial states in, Y and the last states out."""
    states = (5, 6) if node.operator == "LSTM" else (5,)
    inputs = [node.input(i) for i in (0, 4, *states)]
    outputs = [
        node.outputs[i] if i < len(node.outputs) and node.outputs[i] else f"{path}/unread {i}"
        for i in range(1 + len(states))
    ]
    builder.layer(node, path, inputs, outputs)


OPERATORS = {"LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent}
