"""Rewinding to an earlier checkpoint: what recovery starts from, and what can't be gone back to."""

import copy
import math

import pytest
import torch

from pruning import prune
from pruning.errors import SecateurError
from tests.pruning.schedule.jobs import TRAINED, bits, earlier, network, spec

NEXT_TO_NOTHING = TRAINED | {"epochs": 1, "optimizer": {"kind": "sgd", "lr": 1e-30, "momentum": 0}}


def rounds(count=2, **rewind):
    return {"kind": "rounds", "rounds": count, "rewind": {"kind": "weights"} | rewind}


def test_everything_but_what_is_pruned_goes_back_to_the_earlier_checkpoint():
    """With steps too small to be seen, the end is the checkpoint under the mask, buffers too."""
    module, data = network("residual-cross_entropy")
    back = earlier(module)
    frozen = NEXT_TO_NOTHING | {"batch_norm": "freeze"}
    outcome = prune(
        module, data, spec(schedule=rounds(), recovery=frozen), rewind_to=copy.deepcopy(back)
    )
    found = outcome.module.state_dict()
    assert set(outcome.masks) < set(found)
    for name, tensor in back.items():
        kept = outcome.masks.get(name)
        wanted = tensor if kept is None else torch.where(kept, tensor, 0.0)
        assert torch.equal(found[name], wanted), name
    gone = torch.cat([found[n][~m].flatten() for n, m in outcome.masks.items()])
    assert len(gone) == outcome.report.sparsity.removed > 0
    assert not torch.signbit(gone).any()


def test_the_mask_is_made_of_the_trained_weights_not_of_the_rewound_ones():
    module, data = network()
    asked = spec(schedule=rounds(1), recovery=NEXT_TO_NOTHING)
    outcome = prune(module, data, asked, rewind_to=earlier(module))
    plain = prune(module, data, spec(schedule={"kind": "rounds", "rounds": 1}))
    for name, mask in plain.masks.items():
        assert torch.equal(outcome.masks[name], mask)
    assert outcome.report.loss.pruned == plain.report.loss.pruned


def test_two_rounds_are_two_trainings_from_the_same_weights():
    """Second round: the mask of weights trained from the checkpoint; then back once more."""
    module, data = network()
    back = earlier(module)
    two = prune(module, data, spec(schedule=rounds(2), recovery=TRAINED), rewind_to=back)
    first = two.report.rounds[0].sparsity
    one = prune(module, data, spec(first, schedule=rounds(1), recovery=TRAINED), rewind_to=back)
    assert one.report.rounds[0].loss_recovered == two.report.rounds[0].loss_recovered
    trained = torch.cat([one.module.state_dict()[n].abs().flatten() for n in one.masks])
    kept = torch.cat([m.flatten() for m in two.masks.values()])
    order = trained.argsort(stable=True)[: two.report.sparsity.removed]
    assert (~kept).nonzero()[:, 0].tolist() == sorted(order.tolist())


def test_learning_rate_rewinding_keeps_the_weights_and_enters_the_rates_at_its_epoch():
    """Of 4 epochs at half a cosine entered at the third, the last two are left."""
    module, data = network()
    cosine = TRAINED | {"epochs": 4, "rates": {"kind": "cosine"}, "batch_size": 40}
    cosine |= {"optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.0}}
    schedule = rounds(1, kind="learning_rate", epoch=2)
    rewound = prune(module, data, spec(schedule=schedule, recovery=cosine))
    pruned = prune(module, data, spec(schedule={"kind": "rounds", "rounds": 1}))

    by_hand, part = pruned.module, data.training
    for epoch in (2, 3):
        rate = 0.1 * 0.5 * (1 + math.cos(math.pi * epoch / 4))
        loss = torch.nn.functional.cross_entropy(by_hand(*part.inputs.values()), part.target)
        by_hand.zero_grad()
        loss.backward()
        with torch.no_grad():
            for name, parameter in by_hand.named_parameters():
                step = rate * parameter.grad
                parameter -= step * pruned.masks[name] if name in pruned.masks else step
    for name, tensor in by_hand.state_dict().items():
        torch.testing.assert_close(rewound.module.state_dict()[name], tensor)


def test_the_epoch_changes_weight_rewinding_too():
    module, data = network()
    back = earlier(module)
    late, early = (
        prune(module, data, spec(schedule=rounds(1, epoch=e), recovery=TRAINED), rewind_to=back)
        for e in (1, 0)
    )
    assert bits(late)[1] == bits(early)[1]
    assert bits(late)[0] != bits(early)[0]


def refusal(asked, rewind_to):
    module, data = network()
    with pytest.raises(SecateurError) as caught:
        prune(module, data, asked, rewind_to=rewind_to)
    return caught.value.code, caught.value.where


def test_a_checkpoint_that_lacks_a_tensor_or_has_it_otherwise_is_refused_by_name():
    module, _ = network()
    asked = spec(schedule=rounds(), recovery=TRAINED)
    for change, code in (
        (lambda s: s.pop("2.bias"), "rewind_invalid"),
        (lambda s: s.update({"2.bias": torch.zeros(1)}), "rewind_invalid"),
        (lambda s: s["2.bias"].fill_(math.nan), "weights_non_finite"),
    ):
        back = earlier(module)
        change(back)
        assert refusal(asked, back) == (code, "rewind_to.2.bias")


def test_a_checkpoint_is_required_where_it_is_used_and_refused_where_it_is_not():
    module, _ = network()
    back = earlier(module)
    weights = spec(schedule=rounds(), recovery=TRAINED)
    rates = spec(schedule=rounds(kind="learning_rate"), recovery=TRAINED)
    assert refusal(weights, None) == ("rewind_invalid", "rewind_to")
    assert refusal(rates, back) == ("rewind_invalid", "rewind_to")
    assert refusal(spec(), back) == ("rewind_invalid", "rewind_to")
