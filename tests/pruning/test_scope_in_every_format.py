"""The same network has the same weights, multiply-adds and output heads at every door."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pruning
from pruning.data.batches import ArrayData
from pruning.layers import layer_facts
from pruning.uses import observed
from tests.pruning.scope_networks import FORMATS, imported, networks, samples

QUICK = {
    "trust": {"checks": False, "bootstrap": 0, "ladder": False},
    "comparison": {"criteria": []},
}

HEADS = {
    "attention": ["c"],
    "cross": ["c"],
    "tied": ["c"],
    "grown": ["up"],
    "two": ["b", "c"],
    "stream": ["b", "c"],
    "sized": ["b"],
    "images": ["line"],
}
"""By network; `f` or `c` for the others."""


def seen(module):
    return layer_facts(module, observed(module, ArrayData({"x": samples(4)})))


def own(layers):
    return [layer for layer in layers if layer.tied_to is None]


@pytest.mark.parametrize("name", list(networks()))
def test_multiply_adds_are_those_of_torchs_counter(name):
    module = networks()[name]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # the counter does not know oneDNN's LSTM
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(samples(1))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(enabled)
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counts.items() if "attention" not in str(op))
    if name in ("attention", "cross"):
        # Without fused attention its own two products are there, of queries with keys and weights
        # with values: 2 * 8 a pair of tokens.
        keys = 2 if name == "cross" else 5
        products -= 2 * 2 * 8 * 5 * keys if products > 2 * sum_of(module) else 0
    assert sum_of(module) == products // 2


def sum_of(module):
    return sum(layer.macs for layer in seen(module))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", list(networks()))
def test_weights_multiply_adds_and_heads_are_the_same_in_every_format(name, form, tmp_path):
    module = networks()[name]
    library = seen(module)
    facts = imported(module, form, tmp_path).facts
    assert sum(f.parameters for f in own(facts.layers)) == sum(f.parameters for f in own(library))
    assert facts.macs == sum(f.macs for f in library)
    heads = HEADS.get(name, ["c" if hasattr(module, "c") else "f"])
    assert sorted(f.name for f in library if f.is_output) == heads
    assert sorted(f.name for f in facts.layers if f.is_output) == heads
    matrices = sum(f.parameters for f in own(facts.layers))
    assert facts.parameters == matrices + sum(o.parameters for o in facts.others)


KINDS = ("lstm", "gru", "attention", "cross", "left", "right", "images")
METHODS = {
    "magnitude": {"criterion": {"kind": "magnitude"}},
    "obd": {"criterion": {"kind": "obd"}},
    "obs": {"criterion": {"kind": "obs", "damping": 0.01}},
    "wanda": {"criterion": {"kind": "wanda"}},
    "layerwise": {"compensation": {"kind": "layerwise"}},
}


def pruned(module, spec, facts=None):
    target = torch.randint(0, 3, (30,), generator=torch.Generator().manual_seed(2))
    return pruning.prune(module, (samples(30), target), {**QUICK, **spec}, facts=facts)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", KINDS)
def test_every_method_prunes_every_kind(name, method):
    module = networks()[name]
    outcome = pruned(module, METHODS[method])
    total = sum(f.parameters for f in own(seen(module)))
    left = module.w.numel() if (method, name) in (("wanda", "left"), ("wanda", "right")) else 0
    report = outcome.report
    assert report.sparsity.total == total - left
    assert report.scope.weights == total
    assert report.scope.share == (total - left) / total
    assert report.scope.removed_of_all == report.sparsity.removed / total
    assert bool(left) == any(w.code == "layer_left_out" for w in report.warnings)
    weights = dict(outcome.module.named_parameters())
    zeros = sum(int((weights[n][~mask] == 0).sum()) for n, mask in outcome.masks.items())
    assert zeros == report.sparsity.removed == (total - left + 1) // 2


@pytest.mark.parametrize("name", ["lstm", "attention", "left", "images"])
def test_magnitude_removes_the_smallest_weights_of_all_kinds(name):
    module = networks()[name]
    outcome = pruned(module, METHODS["magnitude"])
    weights = torch.cat([
        dict(module.named_parameters())[n].detach().flatten().abs() for n in outcome.masks
    ])  # fmt: skip
    gone = torch.cat([(~mask).flatten() for mask in outcome.masks.values()])
    assert float(weights[gone].max()) <= float(weights[~gone].min())


def test_saliencies_of_recurrent_weights_are_those_of_brute_force():
    module = networks()["lstm"].double()
    x, target = samples(30).double(), torch.arange(30) % 3
    names = ["r.weight_ih_l0", "r.weight_hh_l0", "f.weight"]
    values = {n: p.detach() for n, p in module.named_parameters()}
    gradients = []
    for n in range(24):  # the calibration share of 30 samples
        some = {k: v.clone().requires_grad_() for k, v in values.items()}
        out = torch.func.functional_call(module, some, (x[n : n + 1],))
        loss = nn.functional.cross_entropy(out, target[n : n + 1])
        gradients.append(torch.autograd.grad(loss, [some[k] for k in names]))
    spec = {**QUICK, "criterion": {"kind": "obd", "curvature": "empirical_fisher"},
            "schedule": {"kind": "one_shot", "recomputations": 1}}  # fmt: skip
    from pruning.data.batches import Data

    part = ArrayData({"x": x[:24]}, target[:24])
    report = pruning.prune(module, Data(part, part, part), spec).report
    for index, name in enumerate(names):
        squares = torch.stack([g[index] ** 2 for g in gradients]).mean(0)
        expected = 0.5 * squares * values[name] ** 2
        layer = next(x for x in report.layers if x.name == name.removesuffix(".weight"))
        assert layer.saliency.max == pytest.approx(float(expected.max()), rel=1e-5)
        assert layer.saliency.median == pytest.approx(float(expected.quantile(0.5)), rel=1e-4)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({"criterion": {"kind": "obs", "inverse": "kfac", "damping": 0.01}}, "LSTM"),
        ({"criterion": {"kind": "magnitude"}, "pattern": {"kind": "nm", "n": 2, "m": 4}}, "LSTM"),
        ({"criterion": {"kind": "magnitude"}, "pattern": {"kind": "block"}}, "LSTM"),
    ],
)
def test_what_a_method_can_not_prune_is_left_out_by_name_with_the_reason(spec, kind):
    report = pruned(networks()["lstm"], spec).report
    left = [one for one in report.scope.left_out if one.by == "method"]
    assert [one.name for one in left] == ["r.weight_ih_l0", "r.weight_hh_l0"]
    assert all(kind in one.reason for one in left)
    assert report.sparsity.total == 12
    (warning,) = [w for w in report.warnings if w.code == "layer_left_out"]
    assert "r.weight_ih_l0" in warning.message
    assert "192 weights" in warning.message


def test_the_output_head_is_told_from_use_and_not_from_order():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(8, 3), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.body(x)).mean(1))

    spec = {**METHODS["magnitude"], "scope": {"output_head": False}}
    report = pruned(Backwards().eval(), spec).report
    assert {x.name: x.in_scope for x in report.layers} == {"head": False, "body": True}
    (left,) = [one for one in report.scope.left_out if one.by == "spec"]
    assert (left.name, left.parameters) == ("head", 24)


def test_embeddings_vectors_and_free_tables_are_said_to_be_out():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.place = nn.Embedding(7, 8), nn.Parameter(torch.randn(5, 8))
            self.norm, self.f = nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.f(self.norm(self.embed(ids) + self.place).mean(1))

    ids = torch.randint(7, (30, 5), generator=torch.Generator().manual_seed(0))
    data = (ids, torch.arange(30) % 3)
    report = pruning.prune(Words().eval(), data, {**QUICK, **METHODS["magnitude"]}).report
    out = {one.name: (one.kind, one.parameters, one.by) for one in report.scope.left_out}
    assert out == {
        "embed": ("Embedding", 56, "kind"),
        "place": ("Parameter", 40, "kind"),
        "vectors": ("vectors", 19, "kind"),
    }
    assert report.scope.weights == 24 + 56 + 40
    assert report.scope.parameters == 24 + 56 + 40 + 19
    assert not [w for w in report.warnings if w.code == "layer_left_out"]


def test_parameters_multiplied_by_each_other_alone_are_no_weights():
    class Merged(nn.Linear):
        def __init__(self) -> None:
            super().__init__(8, 3)
            self.a, self.b = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(3, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.weight + self.b @ self.a, self.bias)

    torch.manual_seed(0)
    data = (torch.randn(30, 8), torch.arange(30) % 3)
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), Merged()).eval()
    report = pruning.prune(network, data, {**QUICK, **METHODS["magnitude"]}).report
    assert [layer.name for layer in report.layers if layer.in_scope] == ["0", "2"]
    out = {one.name: (one.kind, one.parameters, one.by) for one in report.scope.left_out}
    assert out["2.a"] == ("computed", 16, "method")
    assert out["2.b"] == ("computed", 6, "method")


def test_what_an_onnx_file_cuts_off_a_weight_is_said_to_be_left_out(tmp_path):
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.c = nn.Parameter(torch.randn(12, 8)), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            some = self.w[: x.shape[0] * 0 + 8]
            return self.c((x @ some.t()).mean(1))

    model = imported(Sliced().eval(), "onnx", tmp_path)
    assert model.facts.parameters == 96 + 27
    report = pruned(model.module, METHODS["magnitude"], facts=model.facts).report
    assert report.sparsity.total == 64 + 24
    assert report.scope.weights == 24 + 96
    (left,) = [one for one in report.scope.left_out if one.name == "w"]
    assert (left.parameters, left.by) == (32, "kind")


class Normalised(nn.Module):
    """A classifier by angles: its weight is used divided by its rows' lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.w = nn.Linear(8, 8), nn.Parameter(torch.randn(3, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x).mean(1) @ nn.functional.normalize(self.w, dim=-1).t()


@pytest.mark.parametrize("form", ["library", *FORMATS])
def test_matrices_that_a_factor_is_computed_from_are_left_out_by_name(form, tmp_path):
    torch.manual_seed(0)
    module = Normalised().eval()
    if form == "library":
        report = pruned(module, METHODS["magnitude"]).report
    else:
        model = imported(module, form, tmp_path)
        assert not any(f.is_output for f in model.facts.layers)
        assert model.facts.parameters == 64 + 8 + 24
        report = pruned(model.module, METHODS["magnitude"], facts=model.facts).report
    left = {x.name: x.parameters for x in report.scope.left_out if x.by == "method"}
    assert left == {"w": 24}
    assert (report.sparsity.total, report.scope.weights) == (64, 64 + 24)
    (warning,) = [w for w in report.warnings if w.code == "layer_left_out"]
    assert warning.message.startswith("24 weights of w ")


def test_factors_of_a_matrix_that_multiplies_are_no_weights():
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Parameter(torch.randn(8, 2)), nn.Parameter(torch.randn(2, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ (self.left @ self.right)

    module = LowRank().eval()
    uses = observed(module, ArrayData({"x": samples(4)}))
    assert set(uses.computed) == {"left", "right"}
    assert not uses.kinds


def test_a_layer_can_be_excluded_by_its_own_path_or_by_that_of_one_weight():
    for pattern, total in (("r", 12), ("r.weight_ih*", 12 + 64), ("f", 192)):
        spec = {**METHODS["magnitude"], "scope": {"exclude": [pattern]}}
        assert pruned(networks()["lstm"], spec).report.sparsity.total == total


class Reused(torch.nn.Module):
    """Each pass leaves memory free that a later constant may take the place of."""

    def __init__(self, factor) -> None:
        super().__init__()
        self.a, self.factor = torch.nn.Linear(8, 8), factor
        self.w, self.b = (torch.nn.Parameter(torch.randn(8, 3)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.relu(self.a(x))
        return x @ (self.w * self.factor(x)) + x @ self.b


@pytest.mark.parametrize(
    "factor", [lambda x: 2.0, lambda x: torch.tensor(2.0), lambda x: x.new_tensor(2.0)]
)
def test_a_constant_is_not_taken_for_what_lay_at_its_address_before(factor):
    for _ in range(5):
        seen = observed(Reused(factor), ArrayData({"x": torch.randn(8, 8)}))
        assert (set(seen.heads), set(seen.computed)) == ({"b"}, {"w"})


class Twice(torch.nn.Module):
    """The first layer's weight is used once more, past the layer."""

    def __init__(self, again) -> None:
        super().__init__()
        self.a, self.head, self.again = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3), again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.again(torch.relu(self.a(x)), self.a.weight))


@pytest.mark.parametrize(
    "again", [lambda x, w: x @ w, lambda x, w: torch.nn.functional.linear(x, w)]
)
def test_criteria_by_inputs_leave_out_a_weight_that_is_used_outside_of_its_layer(again):
    torch.manual_seed(0)
    data = (torch.randn(40, 8), torch.arange(40) % 3)
    asked = {**QUICK, "criterion": {"kind": "wanda"}}
    done = pruning.prune(Twice(again).eval(), data, asked)
    assert set(done.masks) == {"head.weight"}
    (left,) = [one for one in done.report.scope.left_out if one.name == "a"]
    assert "products outside the layer" in left.reason
    assert set(pruning.prune(Twice(again).eval(), data, QUICK | METHODS["magnitude"]).masks) == {
        "a.weight",
        "head.weight",
    }


def test_a_layer_that_is_called_twice_is_seen_whole():
    class Called(torch.nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[1](self[0](torch.relu(self[0](x))))

    torch.manual_seed(0)
    data = (torch.randn(40, 8), torch.arange(40) % 3)
    network = Called(torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)).eval()
    done = pruning.prune(network, data, {**QUICK, "criterion": {"kind": "wanda"}})
    assert set(done.masks) == {"0.weight", "1.weight"}


class Experts(torch.nn.Module):
    """A head that only training uses, and an expert that few samples reach."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)
        self.rare, self.auxiliary = torch.nn.Linear(8, 8), torch.nn.Linear(8, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x)
        far = x[:, :1] > 3.0
        if far.any():
            h = torch.where(far, self.rare(h), h)
        return self.head(h)


def test_a_layer_that_no_forward_pass_uses_is_out_of_scope_and_one_that_few_samples_reach_is_in():
    torch.manual_seed(0)
    x = torch.randn(60, 8).clamp(-2.0, 2.0)
    x[50, 0] = 4.0
    done = pruning.prune(Experts().eval(), (x, torch.arange(60) % 3), QUICK | METHODS["magnitude"])
    assert set(done.masks) == {"body.weight", "rare.weight", "head.weight"}
    left = {one.name: one for one in done.report.scope.left_out}
    assert left["auxiliary"].kind == "unused"
    assert done.report.scope.weights == 8 * 8 + 8 * 8 + 8 * 3 + 8 * 20
    assert [w.code for w in done.report.warnings if "auxiliary" in w.message] == ["layer_left_out"]
