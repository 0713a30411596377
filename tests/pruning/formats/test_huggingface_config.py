"""config.json against the allow-lists: what is read, what is skipped, what is refused."""

import pytest

from pruning.errors import SecateurError
from pruning.formats.huggingface.config import plan
from pruning.formats.huggingface.families import FAMILIES

BERT = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 32}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32}


def refused(config, where, code):
    with pytest.raises(SecateurError) as caught:
        plan(config)
    assert (caught.value.code, caught.value.where) == (code, where)
    return caught.value


def test_only_checked_keys_reach_the_configuration():
    found = plan(BERT | {
        "transformers_version": "4.8.2", "torch_dtype": "float16", "id2label": {"0": "x"},
        "label2id": {"x": 0}, "_name_or_path": "../../etc", "finetuning_task": "mnli",
        "task_specific_params": {"a": {}}, "a_key_nobody_knows": 3, "pruned_heads": {},
        "_attn_implementation": "flash_attention_2", "chunk_size_feed_forward": 0,
    })  # fmt: skip
    assert found.settings == {"hidden_size": 32}
    assert found.labels == 1


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("hidden_size", 10**9, "model_too_large"),
        ("num_hidden_layers", 10**6, "model_too_large"),
        ("vocab_size", 10**7, "model_too_large"),
        ("max_position_embeddings", 10**8, "model_too_large"),
        ("num_labels", 10**7, "model_too_large"),
        ("hidden_size", -32, "model_invalid"),
        ("hidden_size", True, "model_invalid"),
        ("hidden_size", "32", "model_invalid"),
        ("hidden_size", 32.0, "model_invalid"),
        ("hidden_size", None, "model_invalid"),
        ("hidden_size", [32], "model_invalid"),
        ("layer_norm_eps", 0, "model_invalid"),
        ("layer_norm_eps", float("nan"), "model_invalid"),
        ("hidden_dropout_prob", 1.5, "model_invalid"),
        ("hidden_act", "__import__", "model_invalid"),
        ("hidden_act", {"f": 1}, "model_invalid"),
        ("tie_word_embeddings", 1, "model_invalid"),
        ("position_embedding_type", "relative_key", "unsupported_format"),
        ("is_decoder", True, "unsupported_format"),
        ("chunk_size_feed_forward", 4, "unsupported_format"),
        ("pruned_heads", {"0": [1]}, "unsupported_format"),
        ("auto_map", {"AutoModel": "evil.Model"}, "unsupported_format"),
        ("trust_remote_code", True, "unsupported_format"),
        ("quantization_config", {"quant_method": "bitsandbytes"}, "unsupported_format"),
        ("_attn_implementation", "somebody/kernel", "unsupported_format"),
        ("attn_implementation", "paged|eager", "unsupported_format"),
        ("use_kernels", True, "unsupported_format"),
        ("vision_config", {"model_type": "clip"}, "unsupported_format"),
        ("per_layer_config", {"0": {"hidden_size": 4}}, "unsupported_format"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_its_key(key, value, code):
    refused(BERT | {key: value}, key, code)


@pytest.mark.parametrize(
    ("rope", "where"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "rope_parameters"),
        ({"rope_type": "__class__"}, "rope_parameters"),
        ({"rope_type": "linear"}, "factor"),
        ({"rope_type": "linear", "factor": -1}, "factor"),
        ({"rope_type": "default", "rope_theta": 0}, "rope_theta"),
        ({"rope_type": "default", "rope_theta": "1"}, "rope_theta"),
        ({"rope_type": "default", "other": 1}, "rope_parameters"),
        ({"full_attention": {"rope_type": "default"}}, "rope_parameters"),
        ([1], "rope_parameters"),
        ({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
          "original_max_position_embeddings": 16}, "rope_scaling"),
    ],
)  # fmt: skip
def test_rotary_parameters_are_checked(rope, where):
    code = "unsupported_format" if where == "rope_parameters" else "model_invalid"
    refused(LLAMA | {"rope_parameters": rope}, where, code)


@pytest.mark.parametrize("value", [None, 3, "t5", "BERT", ["bert"], {"bert": 1}])
def test_types_that_are_not_read_are_refused_with_those_that_are(value):
    error = refused(BERT | {"model_type": value}, "model_type", "unsupported_format")
    assert error.hint is not None
    assert all(kind in error.hint for kind in FAMILIES)


@pytest.mark.parametrize(
    "names", [["LlamaForCausalLM"], ["BertModel", "BertForMaskedLM"], "BertModel", [3], {"a": 1}]
)
def test_architectures_of_another_type_are_refused(names):
    refused(BERT | {"architectures": names}, "architectures", "unsupported_format")


def test_a_config_without_architectures_is_the_base_model():
    assert plan({"model_type": "bert"}).architecture.name == "BertModel"


def test_a_padding_token_outside_the_vocabulary_is_none():
    found = plan(LLAMA | {"vocab_size": 10, "pad_token_id": -1})
    assert found.pad is None
    assert found.settings["pad_token_id"] is None


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_no_number_of_key_heads_is_that_of_the_heads(model_type):
    config = {"model_type": model_type, "num_attention_heads": 4, "num_key_value_heads": None}
    assert plan(config).settings["num_key_value_heads"] == 4
