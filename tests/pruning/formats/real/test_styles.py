"""Files in the manner of other converters: pruned, written back, equal in onnxruntime."""

import onnx
import pytest
import torch

from tests.pruning.formats.real.pipeline import check, pruned
from tests.pruning.formats.real.styles import STYLES

torch.set_num_threads(1)


@pytest.mark.parametrize("name", STYLES)
def test_a_file_of_another_converter_comes_back_pruned_and_equal(name, tmp_path):
    build, shapes = STYLES[name]
    model = build()
    onnx.checker.check_model(model)
    generator = torch.Generator().manual_seed(2)
    inputs = {n: torch.randn(20, *shape, generator=generator) for n, shape in shapes.items()}
    check(pruned(model.SerializeToString(), inputs, tmp_path))
