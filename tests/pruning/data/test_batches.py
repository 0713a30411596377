import pytest
import torch

from pruning.data.batches import ArrayData, Data
from pruning.errors import SecateurError
from pruning.library.arrays import as_arrays
from pruning.loop import prune


def data(samples=10):
    x = torch.arange(samples * 2.0).view(samples, 2)
    return ArrayData({"b": x, "a": -x}, torch.arange(samples))


def test_batches_hold_every_sample_once_in_order_and_inputs_in_theirs():
    batches = list(data().batches(4))
    assert [len(target) for _, target in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([t for _, t in batches]), torch.arange(10))
    (b, a), _ = batches[0]
    assert torch.equal(a, -b)


def test_a_generator_draws_an_order_that_keeps_samples_together():
    batches = list(data().batches(3, torch.Generator().manual_seed(0)))
    target = torch.cat([t for _, t in batches])
    x = torch.cat([inputs[0] for inputs, _ in batches])
    assert target.tolist() != list(range(10))
    assert sorted(target.tolist()) == list(range(10))
    assert torch.equal(x[:, 0], 2.0 * target)


@pytest.mark.parametrize(("samples", "held"), [(10, 2), (2, 1), (3, 1), (100, 20)])
def test_split_is_disjoint_complete_and_seeded(samples, held):
    rest, out = data(samples).split(0.2, seed=5)
    assert out.samples == held
    assert sorted([*rest.target.tolist(), *out.target.tolist()]) == list(range(samples))
    assert torch.equal(out.target, data(samples).split(0.2, seed=5)[1].target)


def test_calibration_alone_gives_all_roles():
    roles = Data.from_calibration(data(), seed=0)
    assert roles.held_out
    assert roles.training is roles.calibration
    assert not set(roles.evaluation.target.tolist()) & set(roles.calibration.target.tolist())


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (lambda: data(1).split(0.2, 0), "data_empty"),
        (lambda: data(0), "data_empty"),
        (lambda: ArrayData({"x": torch.zeros(3, 2)}, torch.zeros(4)), "data_shape"),
        (lambda: ArrayData({"x": torch.zeros(3), "y": torch.zeros(2)}), "data_shape"),
    ],
)
def test_data_that_do_not_fit_are_refused(build, code):
    with pytest.raises(SecateurError) as caught:
        build()
    assert caught.value.code == code


X, Y = torch.zeros(10, 2), torch.zeros(10, dtype=torch.long)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ((X,), "labels_missing"),
        (X, "labels_missing"),
        ((X, X, Y), "data_unreadable"),
        ((), "data_unreadable"),
        ({"x": X}, "labels_missing"),
        ((X, Y.tolist()), "data_dtype"),
        ((None, Y), "data_dtype"),
        ((X, Y[:7]), "data_shape"),
        ((torch.tensor(1.0), Y), "data_empty"),
    ],
)
def test_samples_that_are_no_pair_of_tensors_are_refused_with_a_hint(given, code):
    with pytest.raises(SecateurError) as caught:
        as_arrays(given)
    assert caught.value.code == code
    assert caught.value.hint
    with pytest.raises(SecateurError) as caught:
        prune(torch.nn.Linear(2, 3), given)
    assert caught.value.code == code


@pytest.mark.parametrize("given", [X, (X,), [X], (X, None)])
def test_inputs_alone_are_enough_where_no_labels_are_needed(given):
    found = as_arrays(given, labelled=False)
    assert found.target is None
    assert torch.equal(found.inputs["input"], X)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,), lambda x: (x, None)])
def test_match_dense_prunes_with_inputs_alone(wrap):
    torch.manual_seed(0)
    net, x = torch.nn.Linear(6, 3), torch.randn(40, 6)
    asked = {"objective": {"loss": "match_dense", "metrics": []}, "criterion": {"kind": "obd"}}
    report = prune(net, wrap(x), asked).report
    assert report.sparsity.removed == 9
    with torch.no_grad():
        labelled = prune(net, (x, net(x)), asked).report
    assert report.loss == labelled.loss


def test_a_pair_may_be_a_list():
    assert as_arrays([X, Y]).samples == 10
