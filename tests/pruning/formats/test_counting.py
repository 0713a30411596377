"""Passes whose cost is out of all proportion are refused before they run, ordinary ones are not."""

import pytest
from torch import Tensor, nn

from pruning.errors import SecateurError
from pruning.facts import ModelFacts, TensorFact
from pruning.formats.facts import module_facts
from pruning.formats.limits import Limits


class Steps(nn.GRU):
    """A recurrent layer whose last state is left out."""

    def __init__(self) -> None:
        super().__init__(1, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """The states after each step."""
        return super().forward(x)[0]


def facts(module: nn.Module, *shape: int) -> ModelFacts:
    declared = TensorFact(name="x", dtype="float32", shape=["n", *shape])
    return module_facts(
        module.eval(), [declared], format="test", version="1", weight_names={}, dtypes={},
        limits=Limits(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.AvgPool2d(1023, 1), (1, 2048, 2048)),
        (nn.MaxPool1d(100_000, 1), (1, 1_000_000)),
        (nn.MaxPool3d(100, 1), (1, 200, 200, 200)),
        (nn.Conv2d(1, 1, 1_500), (1, 4096, 4096)),
        (nn.Identity(), (1, 16_384, 16_384)),
        (Steps(), (40_000, 1)),
    ],
    ids=["mean", "line", "volume", "kernel", "input", "steps"],
)
def test_a_pass_that_would_not_end_is_refused(module: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(SecateurError) as caught:
        facts(module, *shape)
    assert caught.value.code == "model_too_large"


@pytest.mark.parametrize(
    ("module", "shape", "output"),
    [
        (nn.Sequential(nn.Conv1d(1, 4, 3), nn.MaxPool1d(3, 2), nn.AvgPool1d(2)), (1, 28), [4, 6]),
        (nn.Sequential(nn.MaxPool2d((3, 1)), nn.AvgPool2d(13, 1, 6)), (1, 27, 27), [1, 9, 27]),
        (nn.Sequential(nn.Conv3d(1, 2, 3), nn.AvgPool3d(2)), (1, 6, 6, 6), [2, 2, 2, 2]),
    ],
    ids=["1d", "2d", "3d"],
)
def test_ordinary_pooling_is_counted(
    module: nn.Module, shape: tuple[int, ...], output: list[int]
) -> None:
    assert facts(module, *shape).outputs[0].shape == ["N", *output]
