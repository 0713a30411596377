"""Export takes the modules that `pruning.prune` takes, and refuses the others as it does."""

import types
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.utils.prune as torch_prune
from torch import Tensor, nn

from pruning import prune
from pruning.errors import SecateurError
from pruning.formats.architecture import export, read
from pruning.formats.limits import Limits
from tests.pruning.library.networks import MAGNITUDE, Net, pair, zeros

torch.set_num_threads(1)


def written(module: nn.Module, folder: Path):
    export(module, pair(2)[0], folder)
    return read(folder, Limits())


def closed_over(net: Net) -> None:
    net.forward = lambda x: 5 * net.m(x)


def transposed(net: Net) -> None:
    net.m.append(nn.Linear(3, 3))
    net.m.append(nn.Linear(3, 3))
    net.m[4].weight.data = net.m[3].weight.data.t()


def masked(net: Net) -> None:
    torch_prune.l1_unstructured(net.m[0], "weight", amount=0.5)


def normed(net: Net) -> None:
    nn.utils.weight_norm(net.m[0])


def lazy(net: Net) -> None:
    net.m[0] = nn.LazyLinear(8)


def on_meta(net: Net) -> None:
    net.m[0].to("meta")


def half(net: Net) -> None:
    net.forward = types.MethodType(lambda self, x: self.m(x.half()), net)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    "change",
    [closed_over, transposed, masked, normed, lazy, on_meta, half],
    ids=lambda c: c.__name__,
)
def test_both_doors_refuse_a_module_alike(change, tmp_path):
    errors = []
    for door in (lambda m: export(m, pair(2)[0], tmp_path), lambda m: prune(m, pair(), MAGNITUDE)):
        net = Net()
        change(net)
        with pytest.raises(SecateurError) as caught:
            door(net)
        errors.append(caught.value)
    ours, library = errors
    assert (ours.code, ours.where) == (library.code, library.where)
    assert ours.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", [nn.ReLU(), Net().state_dict(), torch.jit.script(Net())])
def test_what_is_no_network_is_refused(module, tmp_path):
    with pytest.raises(SecateurError) as caught:
        export(module, pair(2)[0], tmp_path)
    assert caught.value.code in ("module_unsupported", "no_prunable_layers")


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=["compile", "parallel"])
def test_wrappers_leave_no_trace_in_the_names(wrap, tmp_path):
    imported = written(wrap(Net()), tmp_path)
    assert [layer.name for layer in imported.facts.layers] == ["m.0", "m.2"]


@pytest.mark.parametrize("tie", ["memory", "parameter"])
def test_a_tie_is_written_as_one_weight_and_pruned_as_one(tie, tmp_path):
    class Tied(Net):
        def __init__(self) -> None:
            super().__init__()
            self.m = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 3))
            if tie == "memory":
                self.m[2].weight.data = self.m[0].weight.data
            else:
                self.m[2].weight = self.m[0].weight

    net = Tied()
    imported = written(net, tmp_path)
    first, second, _ = imported.facts.layers
    assert (first.tied_to, second.tied_to) == (None, "m.0")
    theirs = prune(imported.module, pair(), MAGNITUDE, copy=False)
    ours = prune(net, pair(), MAGNITUDE)
    assert zeros(theirs) == zeros(ours) == 27
    assert torch.equal(imported.module.get_parameter("m.2.weight"), ours.module.m[2].weight)


@dataclass
class Scores:
    logits: Tensor
    hidden: tuple[Tensor, None] | None = None


def test_outputs_of_a_dataclass_have_the_names_of_its_fields(tmp_path):
    class Named(Net):
        def forward(self, x: Tensor) -> Scores:
            return Scores(self.m(x), (self.m[0](x), None))

    imported = written(Named(), tmp_path)
    x = pair()[0]
    logits, hidden = imported.module(x)
    torch.testing.assert_close(logits, Net().m(x))
    torch.testing.assert_close(hidden, Net().m[0](x))


def test_a_module_without_a_tensor_among_its_results_is_refused(tmp_path):
    class Nothing(Net):
        def forward(self, x: Tensor) -> None:
            self.m(x)

    with pytest.raises(SecateurError, match=r"operator_unsupported.*NoneType"):
        export(Nothing(), pair(2)[0], tmp_path)


@pytest.mark.parametrize(
    "inputs", [(), {"x": pair(2)[0]}, (pair(2)[0].numpy(),), torch.tensor(1.0)]
)
def test_examples_that_are_no_tensors_are_refused(inputs, tmp_path):
    with pytest.raises(SecateurError) as caught:
        export(Net(), inputs, tmp_path)
    assert (caught.value.code, caught.value.where) == ("usage", "example_inputs")
