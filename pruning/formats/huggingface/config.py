"""config.json against the allow-lists: which network, of which sizes. Torch-free.

A key reaches transformers only if its family takes it, and with a value that its check passes. Keys
that say nothing about the network are skipped; so are unknown ones with a plain value, since the
library would not know them either, and the tensors' names and shapes are compared with what is
built. Unknown objects and lists are refused, and so is what asks for code, kernels or another
arithmetic.
"""

from dataclasses import dataclass
from typing import Any

from pruning.errors import SecateurError
from pruning.formats.huggingface import keys
from pruning.formats.huggingface.families import FAMILIES, Architecture, Family
from pruning.formats.huggingface.texts import shown

FILE = "config.json"
_MOST_LABELS = 100_000

_SKIPPED = frozenset({
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "_num_labels",
    "architectures", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "classifier_dropout", "cls_token_id", "directionality", "dtype", "encoder_stride",
    "eos_token_id", "finetuning_task", "forced_decoder_ids", "gradient_checkpointing",
    "id2label", "initializer_factor", "initializer_range", "init_std", "label2id", "layerdrop",
    "license", "max_length", "model_type", "n_ctx", "name_or_path", "num_labels",
    "output_attentions", "output_hidden_states", "output_past", "pooler_act",
    "pooler_output_size", "pretraining_tp", "problem_type", "reorder_and_upcast_attn",
    "sep_token_id", "sinusoidal_pos_embds", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_type", "summary_use_proj", "suppress_tokens",
    "task_specific_params", "tf_legacy_loss", "tie_encoder_decoder", "tie_weights_",
    "tie_word_embeddings", "torch_dtype", "torchscript", "transformers_version", "use_bfloat16",
    "use_cache",
})  # fmt: skip
"""Known keys that say nothing about the network's function, or only how it was begun."""

_REFUSED = {
    "auto_map": "code of the upload's own is never run",
    "custom_pipelines": "code of the upload's own is never run",
    "trust_remote_code": "code of the upload's own is never run",
    "code_revision": "code of the upload's own is never run",
    "quantization_config": "quantised weights are not pruned",
    "compression_config": "compressed weights are not pruned",
    "kernel_config": "kernels are never fetched",
    "use_kernels": "kernels are never fetched",
    "per_layer_config": "layers of different sizes are not read",
}
_ATTENTION = {"attn_implementation", "_attn_implementation", "_attn_implementation_internal"}
_SAME_ATTENTION = keys.optional(
    keys.one_of("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
)
"""Ways to compute the very same attention; it is always computed in the first."""

_DEFAULTS: dict[str, keys.Check] = {
    "chunk_size_feed_forward": keys.one_of(0),
    "is_encoder_decoder": keys.one_of(False),
    "pruned_heads": keys.optional(keys.one_of({})),
    "return_dict": keys.truth,
    "cross_attention_hidden_size": keys.optional(keys.one_of(0)),
}

_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
_ROPE: dict[str, keys.Check] = {
    "rope_theta": keys.positive(1e12),
    "factor": keys.real(1.0, 1e6),
    "original_max_position_embeddings": keys.positions,
    "attention_factor": keys.optional(keys.positive(1e3)),
    "beta_fast": keys.optional(keys.positive(1e4)),
    "beta_slow": keys.optional(keys.positive(1e4)),
    "low_freq_factor": keys.positive(1e4),
    "high_freq_factor": keys.positive(1e4),
    "mscale": keys.optional(keys.positive(1e3)),
    "mscale_all_dim": keys.optional(keys.positive(1e3)),
    "truncate": keys.truth,
}


@dataclass(frozen=True)
class Plan:
    """Which network a folder holds.

    Attributes:
        model_type: As in config.json.
        family: What is known of it.
        architecture: Which class.
        settings: Keyword arguments of the configuration, all of them checked.
        labels: Outputs of a classifier.
        pad: The token that stands for no text.
        most_tokens: Positions that the network has; None for images.
    """

    model_type: str
    family: Family
    architecture: Architecture
    settings: dict[str, Any]
    labels: int
    pad: int | None
    most_tokens: int | None


def plan(config: dict[str, Any], *, hidden_states: bool = False) -> Plan:
    """The network that a config.json describes.

    Args:
        config: Its keys and values.
        hidden_states: Take the family's base model whatever the architecture, as sentence
            encoders do.

    Raises:
        SecateurError: `unsupported_format` for types, architectures and settings that are not
            read, `model_too_large` for sizes over their bounds, `model_invalid` for values of the
            wrong kind; with the key in `where`.
    """
    for key, reason in _REFUSED.items():
        if config.get(key) not in (None, False, {}, []):
            raise _unread(key, f"{FILE} has {key!r}: {reason}", "Remove the key if it is left over")
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise _unread(
            "model_type",
            f"The model type {shown(str(name))!r} is not one that is read",
            f"Types read here: {', '.join(FAMILIES)}. Export others to ONNX",
        )
    family = FAMILIES[name]
    architecture = _architecture(family, name, config.get("architectures"), hidden_states)
    settings = {k: v for k, v in config.items() if _taken(k, v, family)}
    if family.rotary:
        settings["rope_parameters"] = _rope(config)
    if settings.get("num_key_value_heads", 0) is None:
        # As many as there are heads, which is not what the library takes for a missing key.
        settings["num_key_value_heads"] = settings.get("num_attention_heads", 32)
    if settings.get("head_dim", 0) is None:
        del settings["head_dim"]
    pad = _pad(config, family, settings)
    most = _positions(family, settings, pad)
    return Plan(name, family, architecture, settings, _labels(config), pad, most)


def _architecture(family: Family, model_type: str, names: Any, hidden: bool) -> Architecture:
    base = family.architectures[0]
    if hidden or names is None or names == []:
        return base
    found = next((a for a in family.architectures if names == [a.name]), None)
    if found is None:
        listed = ", ".join(a.name for a in family.architectures)
        raise _unread(
            "architectures",
            f"The architecture {shown(str(names))} is not one that is read for {model_type!r}",
            f"Architectures read here: {listed}",
        )
    return found


def _taken(key: str, value: Any, family: Family) -> bool:
    """Whether a key goes into the configuration, once it is known to be harmless."""
    if key in family.takes:
        _passes(key, value, family.takes[key])
        return True
    if key in family.only or key in _DEFAULTS:
        check = family.only.get(key) or _DEFAULTS[key]
        if not check(value):
            raise _unread(key, f"{key!r} is {shown(str(value))}, which is not read", _RETRAIN)
    elif key in _ATTENTION:
        if not _SAME_ATTENTION(value):
            raise _unread(
                key, f"The attention {shown(str(value))!r} is not known", "Remove the key"
            )
    elif family.rotary and key in ("rope_theta", "rope_scaling", "rope_parameters"):
        return False
    elif key not in _SKIPPED and key not in _REFUSED and isinstance(value, dict | list) and value:
        raise _unread(
            shown(key),
            f"{FILE} has {shown(key)!r}, which is not known for this model type",
            "Remove the key if the network does not depend on it",
        )
    return False


def _passes(key: str, value: Any, check: keys.Check) -> None:
    try:
        fits = check(value)
    except keys.TooLargeError as error:
        raise SecateurError(
            "model_too_large",
            f"{key!r} is {shown(str(value))}; at most {error.args[0]} is read.",
            where=key,
        ) from None
    if not fits:
        raise SecateurError(
            "model_invalid",
            f"{key!r} is {shown(repr(value))}, which is not a value for it.",
            where=key,
            hint=f"Check {FILE} against the one that the training wrote.",
        )


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """How positions turn, of either of the library's spellings, as the newer one."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, dict):
        raise _unread("rope_parameters", "The rotary parameters are no object", _RETRAIN)
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in _ROPE_TYPES:
        raise _unread(
            "rope_parameters",
            f"Rotary positions of type {shown(str(kind))!r} are not read",
            f"Types read here: {', '.join(_ROPE_TYPES)}",
        )
    rope = {"rope_type": kind, "rope_theta": config.get("rope_theta", 10_000.0)}
    for key, value in given.items():
        if key in ("type", "rope_type"):
            continue
        if key not in _ROPE:
            raise _unread("rope_parameters", f"{shown(key)!r} is not read", _RETRAIN)
        rope[key] = value
    for key in set(rope) - {"rope_type"}:
        _passes(key, rope[key], _ROPE[key])
    for key in _NEEDED.get(kind, ()):
        if key not in rope:
            raise SecateurError(
                "model_invalid", f"Rotary positions of type {kind!r} need {key!r}.", where=key
            )
    if kind == "llama3" and not rope["low_freq_factor"] < rope["high_freq_factor"]:
        raise SecateurError(
            "model_invalid", "low_freq_factor is not below high_freq_factor.", where="rope_scaling"
        )
    return rope


_NEEDED = {
    "linear": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}


def _pad(config: dict[str, Any], family: Family, settings: dict[str, Any]) -> int | None:
    """The padding token, None where the key names none of the vocabulary."""
    if not family.vocabulary:
        return None
    value = settings.get("pad_token_id", _PADS.get(config["model_type"]))
    known = isinstance(value, int) and 0 <= value < settings.get(family.vocabulary, 1 << 60)
    if "pad_token_id" in settings and not known:
        settings["pad_token_id"] = None
    return value if known else None


_PADS = {"bert": 0, "distilbert": 0, "roberta": 1, "xlm-roberta": 1, "mpnet": 1, "opt": 1,
         "gemma": 0}  # fmt: skip
"""What the library takes where config.json says nothing."""


def _positions(family: Family, settings: dict[str, Any], pad: int | None) -> int | None:
    if not family.positions:
        return None
    most: int = settings.get(family.positions, 512)
    if family.offset:
        most -= (1 if pad is None else pad) + 1
    if most < 1:
        raise SecateurError(
            "model_invalid", "The network has no position for a token.", where=family.positions
        )
    return most


def _labels(config: dict[str, Any]) -> int:
    names, count = config.get("id2label"), config.get("num_labels")
    if isinstance(names, dict) and names:
        count = len(names)
    if count is None:
        return 2
    _passes("num_labels", count, keys.whole(1, _MOST_LABELS))
    return int(count)


_RETRAIN = "Networks that differ in this are not read; export the model to ONNX"


def _unread(where: str, message: str, hint: str) -> SecateurError:
    return SecateurError("unsupported_format", f"{message}.", where=where, hint=f"{hint}.")
