"""Modules with one batch size, samples on another axis, or labels first, as the loop wants them."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from pruning import prune
from pruning.calling import Calling
from pruning.curvature.network import first_output
from pruning.data.batches import ArrayData
from pruning.errors import SecateurError
from pruning.facts import LayerFact, ModelFacts
from pruning.samples import adapt, by_samples

torch.set_num_threads(1)


class Rigid(nn.Module):
    """Runs at a batch size of two alone; labels, one number for all samples, scores [T, N, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.sizes.append(len(x))
        y = x.reshape(2, 4, 6).transpose(0, 1)
        y = self.second(self.first(y).relu())
        return y.mean(0).argmax(1), y.sum(), y


def rigid() -> Rigid:
    torch.manual_seed(0)
    return Rigid().eval()


def data(count: int) -> ArrayData:
    return ArrayData({"x": torch.randn(count, 24, generator=torch.Generator().manual_seed(1))})


def test_any_number_of_samples_gives_what_each_gives_in_its_own_batch():
    module, x = rigid(), data(5).inputs["x"]
    with by_samples(module), torch.no_grad():
        place = adapt(module, data(5), batch=2)
        found = module(x)
        module.sizes.clear()
        module(x)
        assert module.sizes == [2, 2, 2]
    assert (place.output, place.axis) == (2, 1)
    assert found.shape == (5, 4, 3)
    alone = [module(x[[n, n]])[2][:, 0] for n in range(5)]
    assert torch.allclose(found, torch.stack(alone), atol=1e-6)


def test_the_module_is_itself_again_afterwards():
    module = rigid()
    with by_samples(module):
        adapt(module, data(5), batch=2)
    assert isinstance(module(data(2).inputs["x"]), tuple)
    assert type(module) is Rigid


def test_a_module_that_needs_nothing_is_left_alone():
    module = nn.Linear(24, 3)
    with by_samples(module):
        assert adapt(module, data(4), batch=None)[:2] == (0, 0)
        assert type(module) is nn.Linear


def test_outputs_without_samples_are_refused():
    class Total(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).sum()

    with pytest.raises(SecateurError, match="target_invalid"):
        adapt(Total(24, 3), data(4), batch=None)


def test_a_network_of_one_batch_size_is_pruned_without_labels():
    layers = [
        LayerFact(name=name, kind="Linear", weight=f"{name}.weight", shape=shape, dtype="float32",
                  parameters=shape[0] * shape[1])
        for name, shape in (("first", [8, 6]), ("second", [3, 8]))
    ]  # fmt: skip
    facts = ModelFacts(
        format="onnx", version="17", inputs=[], outputs=[], layers=layers, batch=2,
        parameters=72 + 11, prunable_parameters=72,
    )  # fmt: skip
    module = rigid()
    spec = {
        "objective": {"loss": "match_dense"},
        "compensation": {"kind": "layerwise"},
        "target": {"sparsity": 0.5},
        "trust": {"checks": False},
    }
    outcome = prune(module, data(21), spec, facts=facts)
    gone = [int((~mask).sum()) for mask in outcome.masks.values()]
    assert sum(gone) == (6 * 8 + 8 * 3) // 2
    labels, _, scores = outcome.module(data(2).inputs["x"])
    assert labels.dtype == torch.int64
    assert scores.shape == (4, 2, 3)
    assert outcome.report.loss.pruned > 0


class Pair(NamedTuple):
    hidden: Tensor
    scores: Tensor


@dataclass
class Found:
    logits: Tensor
    cache: object = None


class Given(nn.Module):
    """Returns what `shape` makes of the result of a layer."""

    def __init__(self, shape) -> None:
        super().__init__()
        self.layer, self.shape = nn.Linear(24, 3), shape

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None):
        y = self.layer(x)
        return self.shape(y if shift is None else y + shift)


SHAPES = {
    "dict": (lambda y: {"steps": y.argmax(1), "logits": y, "probs": y.softmax(1)}, "logits"),
    "dataclass": (lambda y: Found(y), "logits"),
    "named": (lambda y: Pair(y.sum(), y), "scores"),
    "nested": (lambda y: (None, (y.argmax(1), [y])), "1.1.0"),
    "none": (lambda y: (y, None), "0"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_first_real_valued_output_of_any_structure_is_taken_by_name(name):
    shape, wanted = SHAPES[name]
    module, x = Given(shape).eval(), data(4).inputs["x"]
    with by_samples(module), torch.no_grad():
        assert adapt(module, data(4), batch=None).name == wanted
        assert torch.equal(first_output(module(x)), module.layer(x))
    assert type(module(x)) is type(shape(module.layer(x)))


def test_hooks_of_the_module_see_its_own_result_and_run_before_the_choice():
    module, x = Given(lambda y: {"logits": y}).eval(), data(4).inputs["x"]
    module.register_forward_hook(lambda m, i, output: {"logits": output["logits"] * 2})
    with by_samples(module), torch.no_grad():
        adapt(module, data(4), batch=None)
        assert torch.equal(module(x), 2 * module.layer(x))


def test_inputs_are_given_by_name_where_asked():
    module, few = Given(lambda y: y).eval(), data(4)
    shifted = ArrayData({**few.inputs, "shift": torch.ones(4, 3)})
    with by_samples(module), torch.no_grad():
        adapt(module, shifted, batch=None, calling=Calling(("x", "shift")))
        found = module(*shifted.inputs.values())
        assert torch.equal(found, module.layer(few.inputs["x"]) + 1)


@pytest.mark.parametrize("value", [None, "text", {"labels": torch.zeros(3).long()}, []])
def test_results_without_a_real_valued_output_are_refused(value):
    with pytest.raises(SecateurError, match="target_invalid"):
        adapt(Given(lambda y: value), data(4), batch=None)


def test_a_class_that_allows_no_other_below_it_is_refused_where_its_call_has_to_change():
    class Named(nn.Module):
        def __init_subclass__(cls, name: str) -> None:
            super().__init_subclass__()

    class One(Named, name="one"):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(24, 3)

        def forward(self, x: Tensor):
            return {"y": self.layer(x)}

    module = One()
    with pytest.raises(SecateurError, match=r"module_unsupported.*derived"):
        adapt(module, data(4), batch=None)
    assert type(module) is One
