"""The model types that are read: their classes and the keys of config.json they take. Torch-free.

Every name of a module or a class that is ever imported stands here; none comes from an upload.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pruning.formats.huggingface import keys
from pruning.formats.huggingface.keys import Check, one_of, optional, truth, whole

Task = Literal["base", "masked", "causal", "sequence", "token", "span", "image"]


@dataclass(frozen=True)
class Architecture:
    """One class of a family.

    Attributes:
        name: Of the class in transformers.
        task: What it puts out.
    """

    name: str
    task: Task


@dataclass(frozen=True)
class Family:
    """One model type.

    Attributes:
        package: Name under transformers.models.
        config: The configuration's class.
        prefix: Under which name heads hold the base model.
        architectures: The base model first.
        takes: Keys of config.json that reach the configuration, each with its check.
        only: Keys that are read in one way, which is the configuration's default.
        positions: The key that bounds a text's length.
        offset: Whether positions are counted from behind the id of the padding token.
        vocabulary: The key that counts tokens; nothing for images.
        bidirectional: Whether every token sees every other.
        pooler: Whether the base model has a pooling layer that is left out; hidden states are what
            is put out, and no other output reaches it.
        segments: Whether it takes token_type_ids.
        rotary: Whether positions are rotations, whose parameters are checked on their own.
    """

    package: str
    config: str
    prefix: str
    architectures: tuple[Architecture, ...]
    takes: Mapping[str, Check]
    only: Mapping[str, Check] = field(default_factory=dict)
    positions: str = "max_position_embeddings"
    offset: bool = False
    vocabulary: str = "vocab_size"
    bidirectional: bool = False
    pooler: bool = False
    segments: bool = False
    rotary: bool = False


def _encoder(stem: str) -> tuple[Architecture, ...]:
    return (
        Architecture(f"{stem}Model", "base"),
        Architecture(f"{stem}ForMaskedLM", "masked"),
        Architecture(f"{stem}ForSequenceClassification", "sequence"),
        Architecture(f"{stem}ForTokenClassification", "token"),
        Architecture(f"{stem}ForQuestionAnswering", "span"),
    )


def _decoder(stem: str) -> tuple[Architecture, ...]:
    return (
        Architecture(f"{stem}Model", "base"),
        Architecture(f"{stem}ForCausalLM", "causal"),
        Architecture(f"{stem}ForSequenceClassification", "sequence"),
        Architecture(f"{stem}ForTokenClassification", "token"),
    )


_SIZES: dict[str, Check] = {
    "vocab_size": keys.vocabulary,
    "hidden_size": keys.width,
    "num_hidden_layers": keys.layers,
    "num_attention_heads": keys.heads,
    "max_position_embeddings": keys.positions,
    "pad_token_id": keys.pad,
    "tie_word_embeddings": truth,
}
_BERT: dict[str, Check] = _SIZES | {
    "intermediate_size": keys.inner_width,
    "hidden_act": keys.activation,
    "hidden_dropout_prob": keys.share,
    "attention_probs_dropout_prob": keys.share,
    "type_vocab_size": whole(1, 1_024),
    "layer_norm_eps": keys.epsilon,
    "classifier_dropout": optional(keys.share),
}
_ENCODES: dict[str, Check] = {
    "is_decoder": one_of(False),
    "add_cross_attention": one_of(False),
    "position_embedding_type": one_of("absolute"),
}
_LLAMA: dict[str, Check] = _SIZES | {
    "intermediate_size": keys.inner_width,
    "hidden_act": keys.activation,
    "num_key_value_heads": optional(keys.heads),
    "head_dim": optional(whole(1, 4_096)),
    "rms_norm_eps": keys.epsilon,
    "attention_dropout": optional(keys.share),
}
_WINDOWS: dict[str, Check] = {
    "use_sliding_window": truth,
    "sliding_window": optional(whole(1, 1 << 24)),
    "max_window_layers": whole(0, 1 << 16),
    "layer_types": optional(keys.attention_kinds),
}


def _bert_like(package: str, stem: str) -> Family:
    return Family(package, f"{stem}Config", "roberta",
                  _encoder(stem), _BERT, _ENCODES,
                  offset=True, bidirectional=True, pooler=True)  # fmt: skip


FAMILIES: dict[str, Family] = {
    "bert": Family("bert", "BertConfig", "bert", _encoder("Bert"),
                   _BERT, _ENCODES, bidirectional=True, pooler=True, segments=True),
    "roberta": _bert_like("roberta", "Roberta"),
    "xlm-roberta": _bert_like("xlm_roberta", "XLMRoberta"),
    "distilbert": Family(
        "distilbert", "DistilBertConfig", "distilbert", _encoder("DistilBert"),
        {
            "vocab_size": keys.vocabulary,
            "dim": keys.width,
            "hidden_dim": keys.inner_width,
            "n_layers": keys.layers,
            "n_heads": keys.heads,
            "max_position_embeddings": keys.positions,
            "pad_token_id": keys.pad,
            "tie_word_embeddings": truth,
            "activation": keys.activation,
            "dropout": keys.share,
            "attention_dropout": keys.share,
            "qa_dropout": keys.share,
            "seq_classif_dropout": keys.share,
        },
        bidirectional=True,
    ),
    "mpnet": Family(
        "mpnet", "MPNetConfig", "mpnet",
        _encoder("MPNet"),
        {k: v for k, v in _BERT.items() if k not in ("type_vocab_size", "classifier_dropout")}
        | {"relative_attention_num_buckets": whole(2, 4_096), "pad_token_id": one_of(1)},
        _ENCODES, offset=True, bidirectional=True, pooler=True,
    ),
    "vit": Family(
        "vit", "ViTConfig", "vit",
        (
            Architecture("ViTModel", "base"),
            Architecture("ViTForImageClassification", "image"),
        ),
        {
            "hidden_size": keys.width,
            "num_hidden_layers": keys.layers,
            "num_attention_heads": keys.heads,
            "intermediate_size": keys.inner_width,
            "hidden_act": keys.activation,
            "hidden_dropout_prob": keys.share,
            "attention_probs_dropout_prob": keys.share,
            "layer_norm_eps": keys.epsilon,
            "image_size": whole(1, 4_096),
            "patch_size": whole(1, 4_096),
            "num_channels": whole(1, 64),
            "qkv_bias": truth,
        },
        positions="", vocabulary="", bidirectional=True, pooler=True,
    ),
    "gpt2": Family(
        "gpt2", "GPT2Config", "transformer",
        (
            Architecture("GPT2Model", "base"),
            Architecture("GPT2LMHeadModel", "causal"),
            Architecture("GPT2ForSequenceClassification", "sequence"),
            Architecture("GPT2ForTokenClassification", "token"),
        ),
        {
            "vocab_size": keys.vocabulary,
            "n_positions": keys.positions,
            "n_embd": keys.width,
            "n_layer": keys.layers,
            "n_head": keys.heads,
            "n_inner": optional(keys.inner_width),
            "pad_token_id": keys.pad,
            "tie_word_embeddings": truth,
            "activation_function": keys.activation,
            "resid_pdrop": keys.share,
            "embd_pdrop": keys.share,
            "attn_pdrop": keys.share,
            "layer_norm_epsilon": keys.epsilon,
            "scale_attn_weights": truth,
            "scale_attn_by_inverse_layer_idx": truth,
        },
        {"add_cross_attention": one_of(False)},
        positions="n_positions",
    ),
    "opt": Family(
        "opt", "OPTConfig", "model",
        (
            Architecture("OPTModel", "base"),
            Architecture("OPTForCausalLM", "causal"),
            Architecture("OPTForSequenceClassification", "sequence"),
        ),
        _SIZES
        | {
            "ffn_dim": keys.inner_width,
            "do_layer_norm_before": truth,
            "_remove_final_layer_norm": truth,
            "word_embed_proj_dim": optional(keys.width),
            "dropout": keys.share,
            "attention_dropout": keys.share,
            "activation_function": keys.activation,
            "enable_bias": truth,
            "layer_norm_elementwise_affine": truth,
        },
    ),
    "llama": Family("llama", "LlamaConfig", "model", _decoder("Llama"),
                    _LLAMA | {"attention_bias": truth, "mlp_bias": truth}, rotary=True),
    "mistral": Family("mistral", "MistralConfig", "model", _decoder("Mistral"),
                      _LLAMA | {"sliding_window": _WINDOWS["sliding_window"]}, rotary=True),
    "qwen2": Family("qwen2", "Qwen2Config", "model", _decoder("Qwen2"),
                    _LLAMA | _WINDOWS, rotary=True),
    "qwen3": Family("qwen3", "Qwen3Config", "model", _decoder("Qwen3"),
                    _LLAMA | _WINDOWS | {"attention_bias": truth}, rotary=True),
    "gemma": Family("gemma", "GemmaConfig", "model", _decoder("Gemma"),
                    _LLAMA | {"attention_bias": truth},
                    {"use_bidirectional_attention": optional(one_of(False)),
                     "hidden_activation": optional(one_of("gelu_pytorch_tanh"))}, rotary=True),
}  # fmt: skip
"""By the `model_type` of config.json."""
