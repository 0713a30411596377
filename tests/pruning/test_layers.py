"""Which weights are found, and the flat vector of them."""

import pytest
import torch
from torch import nn

from pruning.errors import SecateurError
from pruning.layers import FlatWeights, find_prunable, prunable_layers
from pruning.spec import Scope
from tests.oracle.networks import Tied, cnn


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
        self.classifier = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 2)})


def names(module, **scope):
    heads = scope.pop("heads", ())
    return [p.layer for p in find_prunable(module, Scope(**scope), heads)]


def test_layers_in_module_order_with_kinds_and_groups():
    found = prunable_layers(cnn())
    assert [(p.layer, p.kind, p.groups) for p in found] == [
        ("0", "Conv2d", 1),
        ("3", "Conv2d", 2),
        ("4", "Conv2d", 4),
        ("7", "Linear", 1),
    ]
    assert found[0].name == "0.weight"


def test_exclude_takes_shell_patterns():
    assert names(Nested(), exclude=("classifier.*",)) == ["body.0", "body.1"]
    assert names(Nested(), exclude=("*.1", "body.?")) == ["classifier.a", "classifier.b"]


def test_the_output_head_is_left_out_where_the_spec_says_so():
    heads = {"classifier.a.weight"}
    assert names(Nested(), output_head=False, heads=heads) == ["body.0", "body.1", "classifier.b"]
    assert "classifier.a" in names(Nested(), heads=heads)


def test_tied_parameter_is_found_once_and_excluded_by_any_of_its_names():
    assert names(Tied()) == ["first", "head"]
    assert names(Tied(), exclude=("second",)) == ["head"]


@pytest.mark.parametrize(
    ("module", "scope", "code"),
    [
        (nn.Sequential(nn.ReLU()), {}, "no_prunable_layers"),
        (Nested(), {"exclude": ("*",)}, "scope_empty"),
    ],
)
def test_nothing_to_prune_is_an_error(module, scope, code):
    with pytest.raises(SecateurError) as caught:
        names(module, **scope)
    assert caught.value.code == code


def test_flat_weights_read_what_was_written_in_each_dtype():
    module = Nested()
    module.body[1].double()
    weights = FlatWeights(find_prunable(module, Scope()))
    flat = torch.randn(len(weights), dtype=torch.float64)
    weights.write(flat)
    read = weights.read()
    assert torch.equal(read[6:15], flat[6:15])
    assert torch.equal(read[:6], flat[:6].float().double())
    assert weights.group.tolist() == [0] * 6 + [1] * 9 + [2] * 6 + [3] * 4


def test_a_weight_shared_with_an_embedding_stays():
    module = nn.ModuleDict({"e": nn.Embedding(4, 3), "body": nn.Linear(3, 3), "h": nn.Linear(3, 4)})
    module["h"].weight = module["e"].weight
    assert names(module) == ["body"]


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(SecateurError) as caught:
        names(Nested(), exclude=("clasifier.*",))
    assert (caught.value.code, caught.value.where) == ("spec_invalid", "spec.scope.exclude")
