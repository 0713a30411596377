"""Networks that compute with weights whose gradient they do not let through."""

import pytest
import torch
from torch import Tensor, nn

from pruning import prune
from pruning.errors import SecateurError
from pruning.formats.architecture import export, read
from pruning.formats.limits import Limits
from tests.pruning.library.networks import MAGNITUDE, codes, same_roles, zeros

torch.set_num_threads(1)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class NoGrad(Plain):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.body(x)
        return self.head(features)


class Detached(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).detach())


class OwnData(Plain):
    def forward(self, x: Tensor) -> Tensor:
        head = self.head.weight.data
        return nn.functional.linear(self.body(x), head, self.head.bias)


class AllOfIt(Plain):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Chosen(Plain):
    """Goes on with the place of the largest of the body's results alone."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.one_hot(self.body(x).argmax(1), 8).float())


FIRST = {
    Chosen: "body.0.weight",
    NoGrad: "body.0.weight",
    Detached: "body.0.weight",
    OwnData: "head.weight",
    AllOfIt: "body.0.weight",
}
DERIVATIVES = [
    {"kind": "obd"},
    {"kind": "obd", "curvature": "second_backprop"},
    {"kind": "obd", "curvature": "empirical_fisher"},
    {"kind": "obs", "damping": 0.1},
    {"kind": "taylor"},
    {"kind": "synflow"},
]


def run(module: nn.Module, criterion: dict, **parts):
    return prune(module, same_roles(), {**MAGNITUDE, "criterion": criterion, **parts})


@pytest.mark.parametrize("kind", FIRST, ids=lambda k: k.__name__)
@pytest.mark.parametrize("criterion", DERIVATIVES, ids=str)
def test_derivatives_that_are_cut_off_are_refused_and_not_taken_for_zero(kind, criterion):
    with pytest.raises(SecateurError) as caught:
        run(kind(), criterion)
    assert (caught.value.code, caught.value.where) == ("operator_unsupported", FIRST[kind])
    assert "no_grad" in caught.value.message


@pytest.mark.parametrize("kind", FIRST, ids=lambda k: k.__name__)
def test_what_needs_no_derivatives_prunes_it_and_predicts_nothing(kind):
    found, plain = (run(k(), {"kind": "magnitude"}) for k in (kind, Plain))
    assert all(torch.equal(found.masks[name], mask) for name, mask in plain.masks.items())
    assert found.report.loss.predicted_increase is None
    if kind is not Chosen:  # which computes something else
        assert found.report.loss.pruned == pytest.approx(plain.report.loss.pruned)
    assert codes(found) == ["not_predicted"]


def test_trust_says_what_it_can_of_a_network_without_gradients():
    found = prune(NoGrad(), same_roles(), {"criterion": {"kind": "magnitude"}})
    assert found.report.trust is not None
    assert found.report.trust.ladder.not_predicted
    assert [rung.predicted for rung in found.report.trust.ladder.rungs if rung.predicted] == []


def test_beside_layers_out_of_scope_the_derivatives_are_right():
    scope = {"exclude": ["body.*"]}
    found, plain = (run(k(), {"kind": "obd"}, scope=scope) for k in (NoGrad, Plain))
    assert torch.equal(found.masks["head.weight"], plain.masks["head.weight"])
    assert found.report.loss == plain.report.loss


def test_a_file_made_of_it_keeps_no_such_borders(tmp_path):
    export(NoGrad(), torch.randn(2, 6), tmp_path)
    found = run(read(tmp_path, Limits()).module, {"kind": "obd"})
    plain = run(Plain(), {"kind": "obd"})
    assert all(torch.equal(found.masks[name], mask) for name, mask in plain.masks.items())


class Rounded(Plain):
    """A straight-through estimator: the gradient is there, by decree."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.head(h + ((h * 64).round() / 64 - h).detach())


class BesideTheOutput(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.head(h), self.other(h.detach())


@pytest.mark.parametrize("kind", [Rounded, BesideTheOutput], ids=lambda k: k.__name__)
def test_detaching_that_cuts_nothing_off_is_no_reason_to_refuse(kind):
    assert zeros(run(kind(), {"kind": "obd"})) > 0


class Rooted(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().square().sqrt())


def test_derivatives_that_are_not_numbers_are_no_prediction():
    report = run(Rooted(), {"kind": "magnitude"}).report
    assert report.loss.predicted_increase is None
    assert "not a number" in report.rounds[0].not_predicted
    assert [w.code for w in report.warnings if w.where == "loss"] == ["not_predicted"]
