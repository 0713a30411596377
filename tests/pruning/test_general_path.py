"""Weights whose curvature no layer kind describes are named in the report, never passed over."""

import pytest
import torch
from torch import Tensor, nn

from pruning import prune
from pruning.report.html import report_html
from pruning.report.schema import results_json
from tests.oracle import cases

torch.set_num_threads(1)


class Functional(nn.Module):
    """A weight used without calling its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(x @ self.inner.weight))


def functional(checkpoints=None):
    torch.manual_seed(0)
    data = torch.randn(40, 4), torch.randint(3, (40,))
    asked = {"criterion": {"kind": "obd"}, "schedule": {"kind": "one_shot", "recomputations": 2}}
    return prune(Functional(), data, asked, checkpoints=checkpoints).report


def test_the_weight_is_named_in_report_and_page(tmp_path):
    report = functional(tmp_path)
    assert report.curvature.general_path == ["inner.weight"]
    page = report_html(report)
    sentence = "because the model uses these weights in a way that no known layer does"
    assert sentence in page
    assert "<code>inner.weight</code>" in page[page.index(sentence) :]
    resumed = functional(tmp_path)
    assert results_json(resumed) == results_json(report)


@pytest.mark.parametrize("name", ["mlp-cross_entropy", "cnn-cross_entropy", "tied-cross_entropy"])
def test_known_layers_leave_nothing_to_say(name):
    case = cases.make(name, samples=30)
    asked = {"criterion": {"kind": "obd"}}
    report = prune(case.module, (case.data.inputs["x0"], case.data.target), asked).report
    assert report.curvature.general_path == []
    assert "in a way that no known layer does" not in report_html(report)
