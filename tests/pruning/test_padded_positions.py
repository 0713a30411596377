"""Padding is no data: more of it changes neither curvature nor what layers are seen to be given."""

import pytest
import torch
from torch import Tensor, nn

from pruning import prune
from pruning.curvature import ekfac, ggn_diagonal, kfac
from pruning.curvature.losses import IGNORED
from pruning.data.batches import ArrayData, Data
from pruning.evidence import View, input_norms
from tests.oracle import cases

torch.set_num_threads(1)
PAD = 3.0


class Tagger(nn.Module):
    """Layers over every position; a causal language model without attention."""

    def __init__(self, hidden: str) -> None:
        super().__init__()
        self.hidden = hidden
        self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.hidden == "positions first":
            return self.head(torch.tanh(self.inner(x.transpose(0, 1)))).transpose(0, 1)
        if self.hidden == "one axis":
            return self.head(torch.tanh(self.inner(x.flatten(0, 1)))).unflatten(0, x.shape[:2])
        if self.hidden == "one axis, positions first":
            flat = x.transpose(0, 1).flatten(0, 1)
            out = self.head(torch.tanh(self.inner(flat)))
            return out.unflatten(0, x.shape[:2][::-1]).transpose(0, 1)
        return self.head(torch.tanh(self.inner(x)))


class Pooled(nn.Module):
    """A classifier that averages over the tokens that its mask calls real."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.mix = nn.Linear(3, 4), nn.Conv1d(4, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.mix(torch.tanh(self.inner(x)).transpose(1, 2)).transpose(1, 2)
        mean = (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.head(torch.tanh(mean))


HIDDEN = ["samples first", "positions first", "one axis", "one axis, positions first"]


def tagged(hidden, extra, samples=6):
    torch.manual_seed(0)
    module = Tagger(hidden).double().eval()
    x, y = torch.randn(samples, 6, 3).double(), torch.randint(5, (samples, 6))
    x[..., 2] = 0.0
    y[:, :2] = IGNORED  # a prompt
    y[0, 4:] = IGNORED  # a shorter sample, padded already
    x = torch.cat([x, torch.full((samples, extra, 3), PAD).double()], 1)
    y = torch.cat([y, torch.full((samples, extra), IGNORED)], 1)
    x[0, 4:] = PAD
    return cases.Case(module, ArrayData({"x": x}, y), cases.LOSSES["causal_lm"])


def pooled(extra, samples=6):
    torch.manual_seed(0)
    module = Pooled().double().eval()
    x, mask = torch.randn(samples, 5, 3).double(), torch.ones(samples, 5).double()
    x[..., 2] = 0.0
    x[0, 3:], mask[0, 3:] = PAD, 0.0
    x = torch.cat([x, torch.full((samples, extra, 3), PAD).double()], 1)
    mask = torch.cat([mask, torch.zeros(samples, extra).double()], 1)
    data = ArrayData({"x": x, "attention_mask": mask}, torch.randint(3, (samples,)))
    return cases.Case(module, data, cases.LOSSES["cross_entropy"])


def pairs():
    for hidden in HIDDEN:
        yield pytest.param(lambda extra, h=hidden: tagged(h, extra), id=hidden)
    yield pytest.param(pooled, id="attention mask")
    yield pytest.param(lambda extra: tagged(HIDDEN[2], extra, samples=9), id="as many as tokens")


padded = pytest.mark.parametrize("make", pairs())
extras = pytest.mark.parametrize("extra", [1, 3, 40])


@pytest.mark.parametrize("make", [p for p in pairs() if p.id != HIDDEN[3]])
@extras
@pytest.mark.parametrize("kind", [kfac, ekfac, ggn_diagonal])
def test_more_padding_leaves_the_curvature_as_it_is(kind, make, extra):
    short, long = make(0), make(extra)
    found = [
        kind.compute(c.network, c.data, c.loss, torch.arange(len(c.weights))).diagonal()
        for c in (short, long)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-14)


@padded
@extras
def test_more_padding_leaves_the_norms_of_inputs_as_they_are(make, extra):
    short, long = make(0), make(extra)
    found = [
        input_norms.compute(View(c.network, c.data, c.loss, torch.arange(len(c.weights))))
        for c in (short, long)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_norms_are_those_over_the_tokens_before_the_padding_prompts_included(hidden):
    case = tagged(hidden, 2)
    x = case.data.inputs["x"]
    real = torch.cat([x[0, :4], x[1:, :6].flatten(0, 1)])
    found = input_norms.compute(
        View(case.network, case.data, case.loss, torch.arange(len(case.weights)))
    )
    torch.testing.assert_close(found[:3], real.square().sum(0).sqrt(), rtol=1e-12, atol=1e-14)


@padded
def test_an_input_that_only_padding_uses_is_dead(make):
    case = make(2)
    outcome = prune(
        case.module,
        Data(case.data, case.data, case.data),
        {"objective": {"loss": case.loss.name, "metrics": []}, "criterion": {"kind": "magnitude"}},
    )
    first = outcome.report.trust.dead_inputs[0]
    assert (first.inputs, first.dead, first.weights) == (3, 1, 4)


def test_a_whole_kfac_factor_is_the_mean_over_real_positions():
    case = tagged(HIDDEN[0], 5)
    x = case.data.inputs["x"]
    # Positions 1 ... 4 have a label to predict; of the sample that ends early, 1 and 2.
    used = torch.cat([x[:1, 1:3].flatten(0, 1), x[1:, 1:5].flatten(0, 1)])
    expected = used.T @ used / len(x)
    (block, _) = kfac.compute(
        case.network, case.data, case.loss, torch.arange(len(case.weights))
    ).blocks
    basis = kfac.eigenbases(case.network, case.data, case.loss, torch.arange(len(case.weights)))[
        "inner.weight"
    ]
    right, low = basis[1][0], basis[2][1][0]
    torch.testing.assert_close(right @ torch.diag(low) @ right.T, expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(block.right, right)
