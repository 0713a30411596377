"""Two models whose outputs are read in turns leave torch as they found it."""

from pathlib import Path

import torch

from pruning.data.kinds import load_dataset
from pruning.formats.limits import Limits
from pruning.formats.registry import read_model
from pruning.verification.inference import Engine


def test_outputs_read_in_turns_leave_the_callers_grad_mode(digits_files: Path):
    models = [read_model(digits_files / "digits.onnx", Limits()) for _ in range(2)]
    data = load_dataset(digits_files / "calibration.npz", models[0], Limits())
    some = data.select(slice(0, 8))
    first, second = (Engine(model, 1).outputs(some) for model in models)
    assert len(next(first)) == len(next(second)) == 8
    assert torch.is_grad_enabled()
    assert [*first, *second] == []
    assert torch.is_grad_enabled()
