"""Pruning at initialisation: scores at the first weights, SynFlow by many iterations, training."""

import copy

import pytest
import torch

from pruning import prune
from pruning.metrics import evaluate
from tests.oracle import cases
from tests.pruning.schedule.jobs import TRAINED, earlier, network, spec

NEXT_TO_NOTHING = TRAINED | {"epochs": 1, "optimizer": {"kind": "sgd", "lr": 1e-30, "momentum": 0}}


def initial(iterations=1, criterion=None, sparsity=0.8, recovery=NEXT_TO_NOTHING):
    found = {"kind": "at_initialisation", "iterations": iterations}
    criterion = criterion or {"kind": "synflow"}
    return spec(sparsity, schedule=found, criterion=criterion, recovery=recovery)


def synflow_by_hand(module, shape, sparsity, iterations):
    """Algorithm 1 of Tanaka et al. 2020 with plain autograd: the masks, by parameter name."""
    work = copy.deepcopy(module)
    names = [n for n, p in work.named_parameters() if p.dim() > 1]
    weights = dict(work.named_parameters())
    masks = {n: torch.ones_like(weights[n], dtype=torch.bool) for n in names}
    total = sum(m.numel() for m in masks.values())
    for k in range(1, iterations + 1):
        share = 1 - (1 - sparsity) ** (k / iterations)
        count = int(share * total + 0.5)
        flow = copy.deepcopy(work)
        with torch.no_grad():
            for name, parameter in flow.named_parameters():
                if name in masks:
                    parameter.mul_(masks[name])
                parameter.abs_()
        found = dict(flow.named_parameters())
        flow(torch.ones(1, *shape, dtype=torch.float64)).sum().backward()
        scores = torch.cat([(found[n].grad * found[n].detach()).flatten() for n in names])
        kept = torch.cat([masks[n].flatten() for n in names])
        scores[~kept] = -1.0  # gone already: they come first
        left = torch.ones(total, dtype=torch.bool)
        left[scores.argsort(stable=True)[:count]] = False
        for name, part in zip(names, left.split([masks[n].numel() for n in names]), strict=True):
            masks[name] = part.reshape(masks[name].shape)
    return masks


@pytest.mark.parametrize("iterations", [1, 3, 12])
def test_synflow_removes_what_the_algorithm_written_out_removes(iterations):
    module, data = network()
    outcome = prune(module, data, initial(iterations))
    wanted = synflow_by_hand(module, (6,), 0.8, iterations)
    assert outcome.masks.keys() == wanted.keys()
    for name, mask in wanted.items():
        assert torch.equal(outcome.masks[name], mask), name
    assert len(outcome.report.rounds) == 1
    assert outcome.report.rounds[0].removed == outcome.report.sparsity.removed


def test_iterations_matter_and_keep_layers_alive():
    module, data = network()
    at_once, in_many = (prune(module, data, initial(n, sparsity=0.9)) for n in (1, 100))
    assert any(not torch.equal(at_once.masks[n], m) for n, m in in_many.masks.items())
    assert all(bool(m.any()) for m in in_many.masks.values())


def test_snip_scores_anew_at_the_weights_that_are_left():
    """Two iterations are SNIP to the first count, then SNIP of the network without these."""
    module, data = network()
    twice = prune(module, data, initial(2, {"kind": "snip"}))
    total = sum(m.numel() for m in twice.masks.values())
    first = int((1 - 0.2**0.5) * total + 0.5) / total
    once = prune(module, data, initial(1, {"kind": "snip"}, sparsity=first))
    case = cases.make("mlp-cross_entropy")
    case.module = once.module
    flat = case.weights
    loss = torch.nn.functional.cross_entropy(
        once.module(*data.calibration.inputs.values()), data.calibration.target
    )
    grads = torch.autograd.grad(loss, [p.weight for p in flat.layers])
    scores = torch.cat(
        [(g * p.weight).abs().flatten() for g, p in zip(grads, flat.layers, strict=True)]
    )
    kept = torch.cat([m.flatten() for m in once.masks.values()])
    scores = torch.where(kept, scores.detach(), -1.0)
    gone = scores.argsort(stable=True)[: twice.report.sparsity.removed]
    found = torch.cat([m.flatten() for m in twice.masks.values()])
    assert (~found).nonzero()[:, 0].tolist() == sorted(gone.tolist())


def test_with_a_checkpoint_the_upload_is_only_what_the_result_is_compared_with():
    module, data = network()
    first = earlier(module)
    outcome = prune(module, data, initial(5), rewind_to=first)
    start = copy.deepcopy(module)
    start.load_state_dict(first)
    alone = prune(start, data, initial(5))
    for name, mask in alone.masks.items():
        assert torch.equal(outcome.masks[name], mask)
    for name, tensor in alone.module.state_dict().items():
        assert torch.equal(outcome.module.state_dict()[name], tensor)

    report, case = outcome.report, cases.make("mlp-cross_entropy")
    dense = evaluate(module.eval(), data.calibration, case.loss).loss
    begun = evaluate(start.eval(), data.calibration, case.loss).loss
    assert begun != dense
    assert report.loss.dense == dense
    assert report.metrics.dense["accuracy"].value == 1.0
    assert report.rounds[0].loss_before == begun
    assert report.loss.measured_increase == report.loss.pruned - begun
    assert alone.report.loss.dense == begun
    assert alone.report.loss.predicted_increase == report.loss.predicted_increase


def test_the_survivors_are_trained_from_the_first_weights():
    module, data = network()
    slow, trained = (
        prune(module, data, initial(3, recovery=r)) for r in (NEXT_TO_NOTHING, TRAINED)
    )
    assert slow.report.loss.pruned == trained.report.loss.pruned
    assert trained.report.loss.recovered < slow.report.loss.recovered
    state = trained.module.state_dict()
    assert all((state[n][~m] == 0).all() for n, m in trained.masks.items())


def test_without_labels_first_order_scores_need_an_earlier_checkpoint():
    """At the dense weights match_dense has no gradient; away from them it has one."""
    module, data = network()
    asked = initial(1, {"kind": "snip"}) | {"objective": {"loss": "match_dense"}}
    with pytest.raises(Exception, match="gradient, which is zero"):
        prune(module, data, asked)
    outcome = prune(module, data, asked, rewind_to=earlier(module))
    assert any(layer.saliency.max > 0 for layer in outcome.report.layers)
