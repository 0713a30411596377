"""What torch's two exporters write is read, pruned, written back, and equal in onnxruntime."""

from itertools import product

import pytest
import torch
from torch.onnx import OnnxExporterError

from pruning.errors import SecateurError
from pruning.formats.onnx import read_onnx
from tests.pruning.formats.real.exports import Style, exported
from tests.pruning.formats.real.networks import NETWORKS
from tests.pruning.formats.real.pipeline import check, pruned

torch.set_num_threads(1)

NAMED = ("resnet", "mobilenet", "unet", "lstm", "vit", "bert")
SCRIPT, DYNAMO = Style(dynamo=False), Style(dynamo=True)
TRAINED = Style(dynamo=False, train=True)
TRAINING = Style(dynamo=False, train=True, training="TRAINING")
CORE = [
    *product(NETWORKS, [SCRIPT]),
    *product(NAMED, [DYNAMO, TRAINED]),
    # The exporter writes no LSTM in training mode.
    *product([n for n in NAMED if n != "lstm"], [TRAINING]),
    ("mobilenet", Style(dynamo=True, train=True)),
    *product(("vit", "lstm"), [Style(dynamo=False, batch=False)]),
    ("bert_tied", Style(dynamo=False, folding=False)),
    ("unet", Style(dynamo=False, opset=11)),
    ("crnn", Style(dynamo=False, free=True)),
]

_OPSETS = [Style(dynamo=False, opset=n, batch=b) for n in (11, 13, 17, 18) for b in (True, False)]
_SCRIPTS = [
    *_OPSETS,
    Style(dynamo=False, opset=13, folding=False),
    Style(dynamo=False, folding=False),
    Style(dynamo=False, free=True),
    Style(dynamo=False, train=True, training="PRESERVE"),
    Style(dynamo=False, train=True, training="TRAINING", folding=False),
]
_DYNAMOS = [
    DYNAMO,
    *(Style(dynamo=True, opset=n) for n in (18, 21, 23)),
    Style(dynamo=True, batch=False),
    Style(dynamo=True, free=True),
    Style(dynamo=True, train=True),
]
_NINE = product(("resnet", "mobilenet", "efficientnet", "forecast"), [Style(dynamo=False, opset=9)])
WIDE = [case for case in (*product(NETWORKS, [*_SCRIPTS, *_DYNAMOS]), *_NINE) if case not in CORE]


IN_PIECES = ("lstm", "gru", "crnn", "crnn_steps_first")
"""Without folding their gates are cut and joined again in the graph: refused by name."""


@pytest.mark.parametrize(("name", "style"), CORE, ids=str)
def test_an_export_comes_back_pruned_and_equal_in_onnxruntime(name, style, tmp_path):
    # A fixed batch size takes a pass for every two samples.
    inputs = NETWORKS[name].draw(20 if style.batch else 8)
    check(pruned(exported(name, style), inputs, tmp_path))


@pytest.mark.wide
@pytest.mark.parametrize(("name", "style"), WIDE, ids=str)
def test_any_export_comes_back_pruned_and_equal_in_onnxruntime(name, style, tmp_path):
    try:
        file = exported(name, style)
    except OnnxExporterError as error:
        pytest.skip(f"the exporter does not write it: {str(error).splitlines()[0][:200]}")
    if name in IN_PIECES and not style.folding:
        with pytest.raises(SecateurError, match="computed by") as refused:
            read_onnx(file)
        assert refused.value.code == "operator_attribute_unsupported"
        return
    check(pruned(file, NETWORKS[name].draw(12), tmp_path))
