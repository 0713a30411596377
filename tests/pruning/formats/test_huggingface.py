"""Networks of every supported type: read as transformers reads them, pruned, written back."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pruning.data.batches import ArrayData
from pruning.loop import prune
from pruning.spec import default_spec
from tests.pruning.formats.huggingface_cases import (
    ARCHITECTURES,
    HEADS,
    again,
    expected,
    given,
    imported,
    made,
    samples,
)


@pytest.mark.parametrize(("kind", "name"), ARCHITECTURES)
def test_an_imported_network_computes_what_transformers_computes(kind, name, tmp_path):
    network = made(kind, name, tmp_path)
    model = imported(tmp_path)
    inputs = samples(kind, [fact.name for fact in model.facts.inputs])
    torch.testing.assert_close(given(model, inputs), expected(network, inputs))
    assert model.facts.batch is None
    assert not model.module.training
    names = dict(network.named_modules())
    assert model.facts.layers
    assert all(layer.name in names for layer in model.facts.layers)
    assert set(model.weight_names.values()) <= set(model.tensors())
    heads = [layer.name for layer in model.facts.layers if layer.is_output]
    # Hidden states are a residual stream, to which two layers of each of two blocks add; patches
    # too, and OPT here projects it.
    hidden = name.endswith("Model") and "LMHead" not in name
    assert len(heads) == ({"vit": 5, "opt": 1}.get(kind, 4) if hidden else 1)


@pytest.mark.parametrize("kind", HEADS)
def test_a_pruned_network_comes_back_as_transformers_reads_it(kind, tmp_path):
    name = HEADS[kind]
    network = made(kind, name, tmp_path / "in")
    model = imported(tmp_path / "in")
    inputs = samples(kind, [fact.name for fact in model.facts.inputs], count=10)
    outcome = prune(model.module, ArrayData(inputs), default_spec(labelled=False))
    assert outcome.masks
    zeros = 0
    for path, mask in outcome.masks.items():
        weight = outcome.module.get_parameter(path)
        assert not weight[~mask].any()
        zeros += int((~mask).sum())
    assert zeros == round(0.5 * sum(mask.numel() for mask in outcome.masks.values()))
    model.module = outcome.module
    (tmp_path / "out").mkdir()
    written = model.write(tmp_path / "out", "ignored")
    assert {path.name for path in written} == {p.name for p in (tmp_path / "in").iterdir()}
    back = again(kind, name, tmp_path / "out")
    torch.testing.assert_close(expected(back, inputs), given(model, inputs), atol=1e-5, rtol=0)
    assert (expected(network, inputs) - given(model, inputs)).abs().max() > 1e-3
    reread = imported(tmp_path / "out")
    assert reread.skeleton() == model.skeleton()
    assert sum(layer.zeros or 0 for layer in reread.facts.layers) >= zeros
    for facts in (reread.facts, model.facts):
        facts.layers = [layer.model_copy(update={"zeros": None}) for layer in facts.layers]
    assert reread.facts == model.facts
    for path, mask in outcome.masks.items():
        assert not reread.module.get_parameter(path)[~mask].any()


def test_tied_embeddings_are_one_parameter_and_are_written_under_each_name(tmp_path):
    made("gpt2", "GPT2LMHeadModel", tmp_path / "in")
    path = tmp_path / "in" / "model.safetensors"
    tensors = load_file(path)
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, path, {"format": "pt"})
    model = imported(tmp_path / "in")
    embedding = model.module.get_parameter("transformer.wte.weight")
    assert model.module.get_parameter("lm_head.weight") is embedding
    assert ["transformer.wte.weight", "lm_head.weight"] in model.facts.ties
    with torch.no_grad():
        embedding[3, 5] = 7.0
    (tmp_path / "out").mkdir()
    model.write(tmp_path / "out", "m")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found["lm_head.weight"][3, 5] == found["transformer.wte.weight"][3, 5] == 7.0


def test_embeddings_that_are_not_tied_stay_two(tmp_path):
    made("llama", "LlamaForCausalLM", tmp_path, tie_word_embeddings=False)
    module = imported(tmp_path).module
    head, words = (module.get_parameter(p) for p in ("lm_head.weight", "model.embed_tokens.weight"))
    assert head is not words
    assert not torch.equal(head, words)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_and_untouched_numbers_bit_for_bit(dtype, tmp_path):
    made("llama", "LlamaForCausalLM", tmp_path / "in", dtype=dtype).to(dtype).save_pretrained(
        tmp_path / "in"
    )
    model = imported(tmp_path / "in")
    assert model.facts.dtypes == [str(dtype).removeprefix("torch.")]
    assert all(p.dtype == torch.float32 for p in model.module.parameters())
    weight = model.module.get_parameter("model.layers.0.mlp.up_proj.weight")
    with torch.no_grad():
        weight[0] = -0.0
        weight[1, 0] = 0.1
    (tmp_path / "out").mkdir()
    model.write(tmp_path / "out", "m")
    before = load_file(tmp_path / "in" / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    changed = after[name]
    assert changed.dtype == dtype
    assert not changed[0].view(torch.int16).any()
    assert changed[1, 0] == torch.tensor(0.1, dtype=dtype)
    changed[0], changed[1, 0] = before[name][0], before[name][1, 0]
    for key, value in before.items():
        assert torch.equal(after[key].view(torch.int16), value.view(torch.int16)), key


def test_a_value_that_half_precision_cannot_hold_is_an_error(tmp_path):
    from pruning.errors import SecateurError

    made("bert", "BertModel", tmp_path).half().save_pretrained(tmp_path)
    model = imported(tmp_path)
    with torch.no_grad():
        model.module.get_parameter("encoder.layer.0.output.dense.weight")[0, 0] = 1e6
    with pytest.raises(SecateurError) as caught:
        model.write(tmp_path, "m")
    assert caught.value.code == "weights_non_finite"
    assert caught.value.where == "encoder.layer.0.output.dense.weight"


def test_gpt2_layers_are_linear_and_go_back_transposed(tmp_path):
    network = made("gpt2", "GPT2LMHeadModel", tmp_path / "in")
    model = imported(tmp_path / "in")
    layer = model.module.get_submodule("transformer.h.1.mlp.c_fc")
    assert type(layer) is nn.Linear
    stored = network.get_parameter("transformer.h.1.mlp.c_fc.weight")
    assert torch.equal(layer.weight, stored.T)
    with torch.no_grad():
        layer.weight[2, 4] = 0.0
    (tmp_path / "out").mkdir()
    model.write(tmp_path / "out", "m")
    found = load_file(tmp_path / "out" / "model.safetensors")["transformer.h.1.mlp.c_fc.weight"]
    assert found[4, 2] == 0
    assert int((found != stored).sum()) == 1


def test_names_of_older_files_are_understood(tmp_path):
    """The first GPT-2 files: no prefix, and the causal masks among the tensors."""
    network = made("gpt2", "GPT2LMHeadModel", tmp_path)
    path = tmp_path / "model.safetensors"
    old = {n.removeprefix("transformer."): t for n, t in load_file(path).items()}
    old |= {f"h.{i}.attn.bias": torch.ones(1, 1, 40, 40).tril() for i in range(2)}
    save_file(old, path, {"format": "pt"})
    model = imported(tmp_path)
    inputs = samples("gpt2", ["input_ids", "attention_mask"])
    torch.testing.assert_close(given(model, inputs), expected(network, inputs))
    assert model.weight_names["transformer.h.0.mlp.c_fc.weight"] == "h.0.mlp.c_fc.weight"


def test_what_pretraining_left_over_is_kept_and_not_read(tmp_path):
    """A file of BertForPreTraining as BertForMaskedLM, with norms called gamma and beta."""
    network = made("bert", "BertForMaskedLM", tmp_path / "in")
    path = tmp_path / "in" / "model.safetensors"
    old = {}
    for name, tensor in load_file(path).items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old[name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    old |= {
        "bert.pooler.dense.weight": torch.ones(32, 32),
        "bert.embeddings.position_ids": torch.arange(40)[None],
        "cls.seq_relationship.weight": torch.ones(2, 32),
    }
    save_file(old, path, {"format": "pt"})
    model = imported(tmp_path / "in")
    inputs = samples("bert", ["input_ids", "attention_mask", "token_type_ids"])
    torch.testing.assert_close(given(model, inputs), expected(network, inputs))
    assert "bert.pooler.dense.weight" not in model.weight_names.values()
    (tmp_path / "out").mkdir()
    model.write(tmp_path / "out", "m")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == path.read_bytes()


def test_the_base_model_is_found_in_a_file_of_a_head(tmp_path):
    network = made("bert", "BertForSequenceClassification", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["BertModel"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = imported(tmp_path)
    inputs = samples("bert", ["input_ids", "attention_mask", "token_type_ids"])
    with torch.no_grad():
        hidden = network.bert(**inputs).last_hidden_state
    torch.testing.assert_close(given(model, inputs), hidden)
    assert model.weight_names["encoder.layer.0.output.dense.weight"].startswith("bert.")


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 500.0},
        {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                          "original_max_position_embeddings": 10}},
    ],
)  # fmt: skip
def test_rotary_settings_of_older_files_mean_what_they_mean_to_transformers(rope, tmp_path):
    made("llama", "LlamaForCausalLM", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps(config | rope))
    inputs = samples("llama", ["input_ids", "attention_mask"])
    network = again("llama", "LlamaForCausalLM", tmp_path)
    torch.testing.assert_close(given(imported(tmp_path), inputs), expected(network, inputs))


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "vit"])
def test_copies_are_independent_and_differentiate_twice(kind, tmp_path):
    made(kind, HEADS[kind], tmp_path)
    model = imported(tmp_path)
    inputs = samples(kind, [fact.name for fact in model.facts.inputs], count=2)
    twin = copy.deepcopy(model.module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert given(model, inputs).abs().max() > 0
    loss = model.module(*inputs.values()).square().mean()
    parameters = [p for p in model.module.parameters() if p.ndim > 1]
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    total = sum(g.square().sum() for g in gradients if g is not None)
    second = torch.autograd.grad(total, parameters, allow_unused=True)
    assert any(g is not None and bool(g.abs().max() > 0) for g in second)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "opt", "qwen2", "vit"])
def test_single_samples_map_to_gradients(kind, tmp_path):
    made(kind, HEADS[kind], tmp_path)
    model = imported(tmp_path)
    inputs = samples(kind, [fact.name for fact in model.facts.inputs], count=3)
    state = dict(model.module.named_parameters())

    def loss(parameters, *sample):
        result = torch.func.functional_call(
            model.module, parameters, tuple(x[None] for x in sample)
        )
        return result.square().mean()

    axes = (None, *(0 for _ in inputs))
    found = torch.func.vmap(torch.func.grad(loss), axes)(state, *inputs.values())
    one = torch.func.grad(loss)(state, *(x[1] for x in inputs.values()))
    for name, gradient in one.items():
        torch.testing.assert_close(found[name][1], gradient, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "vit"])
def test_fused_attention_gives_way_to_derivatives(kind, tmp_path):
    made(kind, HEADS[kind], tmp_path)
    model = imported(tmp_path)
    inputs = samples(kind, [fact.name for fact in model.facts.inputs], count=2)
    fused = given(model, inputs)
    torch.testing.assert_close(fused, model.module(*inputs.values()).detach())
    state = {name: p.detach() for name, p in model.module.named_parameters()}
    tangents = {name: torch.ones_like(p) for name, p in state.items()}

    def run(parameters):
        return torch.func.functional_call(model.module, parameters, tuple(inputs.values()))

    with torch.no_grad():
        value, slope = torch.func.jvp(run, (state,), (tangents,))
        ahead, behind = (
            run({name: p + step * tangents[name] for name, p in state.items()})
            for step in (1e-3, -1e-3)
        )
    torch.testing.assert_close(value, fused)
    miss = (ahead - behind) / 2e-3 - slope
    assert miss.norm() < 0.02 * slope.norm()


def test_a_network_reads_numbers_and_not_the_file(tmp_path):
    """Parameters are memory of their own: the upload never changes under a job's hands."""
    made("bert", "BertModel", tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = imported(tmp_path)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(1)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not np.shares_memory(
        model.module.get_parameter("embeddings.LayerNorm.weight").detach().numpy(),
        model.tensors()["embeddings.LayerNorm.weight"],
    )
