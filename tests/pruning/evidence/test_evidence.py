"""What criteria ask for beside curvature, against autograd by hand on the whole table of cases."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacrev

from pruning.criteria import Problem
from pruning.curvature.network import Network, first_output
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.evidence import (
    View,
    draws,
    gather,
    gradient,
    hessian_gradient,
    input_norms,
    output_rows,
    synaptic_flow,
)
from pruning.layers import FlatWeights, find_prunable
from pruning.registry import method
from pruning.spec import Scope, parse_spec
from tests.oracle import brute_force, cases

torch.set_num_threads(1)
cases_table = pytest.mark.parametrize("name", cases.NAMES)
NEW = ("random", "taylor", "snip", "grasp", "synflow", "wanda")


def close(value, expected):
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


def view(case, every=1, seed=0):
    active = torch.arange(len(case.weights))[::every]
    return View(case.network, case.data, case.loss, active, seed)


def scores(case, kind, every=1, **parameters):
    criterion = parse_spec({"criterion": {"kind": kind, **parameters}}).criterion
    seen = view(case, every)
    weights = case.weights.read()[seen.active]
    problem = Problem(weights, evidence=gather(criterion, seen))
    assert method("criteria", kind).curvature(criterion, len(weights)) is None
    return method("criteria", kind).score(problem)


def true_gradient(case):
    return grad(lambda w: brute_force.mean_loss(case, w))(case.weights.read()).detach()


@cases_table
@pytest.mark.parametrize("every", [1, 3])
def test_gradient_and_what_taylor_and_snip_make_of_it(name, every):
    case = cases.make(name)
    g, w = true_gradient(case)[::every], case.weights.read()[::every]
    close(gradient.compute(view(case, every)), g)
    close(scores(case, "taylor", every), (g * w).abs())
    close(scores(case, "snip", every), (g * w).abs() / (g * w).abs().sum())


@cases_table
@pytest.mark.parametrize("every", [1, 3])
def test_hessian_gradient_is_the_exact_hessian_times_the_gradient(name, every):
    case = cases.make(name)
    w, active = case.weights.read(), torch.arange(len(case.weights))[::every]
    h = hessian(lambda v: brute_force.mean_loss(case, v))(w).detach()[active][:, active]
    product = h @ true_gradient(case)[active]
    close(hessian_gradient.compute(view(case, every)), product)
    close(scores(case, "grasp", every), w[active] * product)


def test_grasp_is_half_of_what_the_squared_gradient_loses():
    case = cases.make("mlp-cross_entropy")
    w = case.weights.read()

    def squared_norm(v):
        return grad(lambda u: brute_force.mean_loss(case, u))(v).square().sum()

    # Setting a weight to zero moves it by -w, along which the norm falls by w d/dw |g|^2.
    close(scores(case, "grasp"), w * grad(squared_norm)(w).detach() / 2)


@cases_table
@pytest.mark.parametrize("every", [1, 3])
def test_input_norms_are_those_of_the_derivatives_of_each_layers_outputs(name, every):
    """Of y = W x the derivative of an output in its weight is the input the weight meets."""
    case = cases.make(name)
    layers = dict(case.module.named_modules(remove_duplicate=False))
    expected = []
    for p in case.weights.layers:
        squares = torch.zeros_like(p.weight)
        for layer_name in (p.layer, *p.aliases):
            layer, caught = layers[layer_name], []
            handle = layer.register_forward_pre_hook(lambda _, x, c=caught: c.append(x[0].detach()))
            with torch.no_grad():
                case.module(*case.data.inputs.values())
            handle.remove()
            for n, x in enumerate(caught[0]):
                if case.loss.name == "causal_lm":
                    # What stands behind the last label is padding.
                    x = x[: int((case.data.target[n] != -100).nonzero().max()) + 1]
                rows = jacrev(lambda w, x=x, m=layer: functional_call(m, {"weight": w}, (x[None],)))
                squares += rows(p.weight.detach()).square().flatten(0, -p.weight.ndim - 1).sum(0)
        expected.append(squares.sqrt().flatten())
    norms = torch.cat(expected).detach()[::every]
    close(input_norms.compute(view(case, every)), norms)
    product = case.weights.read()[::every].abs() * norms
    close(scores(case, "wanda", every, compare="allocation"), product)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "circular", "replicate"])
@pytest.mark.parametrize("padding", ["same", (1, 2)])
def test_input_norms_know_every_padding_of_a_convolution(padding, padding_mode):
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, (3, 2), padding=padding, padding_mode=padding_mode).double().eval()
    x = torch.randn(4, 2, 6, 5, dtype=torch.float64)
    rows = jacrev(lambda w: functional_call(conv, {"weight": w}, (x,)))(conv.weight.detach())
    expected = rows.square().sum((0, 1, 2, 3)).sqrt().flatten()
    weights = FlatWeights(find_prunable(conv, Scope()))
    network = Network(conv, weights)
    seen = View(
        network, ArrayData({"x": x}), cases.make("mlp-mse").loss, torch.arange(len(weights))
    )
    close(input_norms.compute(seen), expected.detach())


class Twice(nn.Module):
    """One layer under two names, called with its input by name."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first

    def forward(self, x):
        return self.again(input=torch.tanh(self.first(input=x)))


def test_a_layer_under_two_names_is_heard_once_a_call():
    torch.manual_seed(0)
    module, x = Twice().double().eval(), torch.randn(5, 4).double()
    case = cases.Case(module, ArrayData({"x": x}), None)
    second = torch.tanh(module.first(x)).detach()
    expected = (x.square().sum(0) + second.square().sum(0)).sqrt().repeat(4)
    close(input_norms.compute(view(case)), expected)


class Around(nn.Module):
    """A weight that is used past its layer's forward pass."""

    def __init__(self):
        super().__init__()
        self.seen, self.unseen = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return nn.functional.linear(self.seen(x), self.unseen.weight)


def test_a_layer_whose_inputs_are_not_seen_is_refused_rather_than_scored_zero():
    case = cases.Case(Around().eval(), ArrayData({"x": torch.randn(5, 4)}), None)
    with pytest.raises(SecateurError) as caught:
        input_norms.compute(view(case))
    assert (caught.value.code, caught.value.where) == ("operator_unsupported", "unseen")


@cases_table
def test_wanda_takes_the_same_share_of_every_row_by_its_product(name):
    case = cases.make(name)
    product, ranked = scores(case, "wanda", compare="allocation"), scores(case, "wanda")
    rows = output_rows.compute(view(case))
    assert len(rows.unique()) == sum(len(p.weight) for p in case.weights.layers)
    half = method("patterns", "unstructured").smallest(ranked, len(rows) // 2)
    for row in rows.unique():
        mine = rows == row
        order = product[mine].argsort(stable=True)
        assert torch.equal(ranked[mine].argsort(stable=True), order)
        gone = int(half[mine].sum())
        assert abs(gone - int(mine.sum()) / 2) <= 1
        assert half[mine][order[:gone]].all()


@cases_table
def test_output_rows_are_rows_of_one_weight(name):
    case = cases.make(name)
    rows, start = output_rows.compute(view(case)), 0
    for part, p in zip(case.weights.split(rows), case.weights.layers, strict=True):
        for n, row in enumerate(part):
            assert (row == start + n).all()
        start += len(p.weight)


@cases_table
def test_synaptic_flow_is_the_gradient_of_the_network_of_absolute_values(name):
    case = cases.make(name)
    before = deepcopy(case.module.state_dict())
    values = {k: v.detach().abs() for k, v in case.module.named_parameters()}
    means = {k: 0 * v for k, v in case.module.named_buffers() if k.endswith("running_mean")}
    inputs = tuple(torch.ones_like(x[:1]) for x in case.data.inputs.values())
    if not all(x.is_floating_point() for x in inputs):
        with pytest.raises(SecateurError, match="synflow"):
            synaptic_flow.compute(view(case))
        return
    module = deepcopy(case.module)
    flow = jacrev(lambda v: first_output(functional_call(module, {**v, **means}, inputs)).sum())
    parts = flow(values)
    expected = torch.cat([parts[p.name].flatten() for p in case.weights.layers]).detach()
    close(synaptic_flow.compute(view(case, 2)), expected[::2])
    close(scores(case, "synflow"), expected * case.weights.read().abs())
    assert all(torch.equal(v, before[k]) for k, v in case.module.state_dict().items())


def test_synaptic_flow_is_conserved_from_layer_to_layer():
    """Tanaka et al. 2020, theorem 2: without biases each layer's saliencies add up to R."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False),
    ).double().eval()  # fmt: skip
    case = cases.Case(module, ArrayData({"x": torch.randn(3, 2, 4, 4).double()}), None)
    per_layer = [part.sum() for part in case.weights.split(scores(case, "synflow"))]
    with torch.no_grad():
        for p in module.parameters():
            p.abs_()
        total = module(torch.ones(1, 2, 4, 4, dtype=torch.float64)).sum()
    for value in per_layer:
        close(value, total)


def test_synaptic_flow_of_a_float32_network_does_not_underflow():
    torch.manual_seed(0)
    layers = [layer for _ in range(30) for layer in (nn.Linear(4, 4, bias=False), nn.ReLU())]
    module = nn.Sequential(*layers).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(0.01)
    case = cases.Case(module, ArrayData({"x": torch.randn(3, 4)}), None)
    assert (scores(case, "synflow") > 0).all()
    assert all(p.dtype == torch.float32 for p in module.parameters())


def test_draws_are_uniform_fixed_by_the_seed_and_the_same_in_every_step():
    case = cases.make("cnn-cross_entropy")
    first = draws.compute(view(case))
    assert torch.equal(first, draws.compute(view(case)))
    assert torch.equal(first[::3], draws.compute(view(case, 3)))
    assert not torch.equal(first, draws.compute(view(case, seed=1)))
    assert 0.4 < first.mean() < 0.6
    assert len(first.unique()) == len(first)
    assert torch.equal(scores(case, "random"), first)


@pytest.mark.parametrize("kind", NEW)
def test_a_job_removes_exactly_what_was_asked_by_its_criterion(kind):
    import pruning

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3))
    x, y = torch.randn(60, 6), torch.randint(3, (60,))
    spec = {"criterion": {"kind": kind}, "target": {"sparsity": 0.37}}
    outcome = pruning.prune(module, (x, y), spec)
    removed = sum(int((~m).sum()) for m in outcome.masks.values())
    assert removed == outcome.report.sparsity.removed == int(0.37 * 63 + 0.5)
    again = pruning.prune(module, (x, y), spec)
    assert all(torch.equal(m, again.masks[k]) for k, m in outcome.masks.items())
