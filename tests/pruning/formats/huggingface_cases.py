"""Tiny networks of every supported type, saved the way transformers saves them."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruning.formats.huggingface import read
from pruning.formats.huggingface.families import FAMILIES
from pruning.formats.huggingface.model import HuggingFaceModel
from pruning.formats.limits import Limits

_SIZES: dict[str, Any] = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 40,
}  # fmt: skip
_DECODER = _SIZES | {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
SETTINGS: dict[str, dict[str, Any]] = {
    "bert": _SIZES,
    "roberta": _SIZES,
    "xlm-roberta": _SIZES,
    "mpnet": _SIZES,
    "distilbert": {
        "vocab_size": 99, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48,
        "max_position_embeddings": 40,
    },
    "vit": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "image_size": 16, "patch_size": 8,
    },
    "gpt2": {
        "vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40,
        "pad_token_id": 0,
    },
    "opt": {
        "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "ffn_dim": 48, "max_position_embeddings": 40, "word_embed_proj_dim": 16,
    },
    "llama": _DECODER,
    "mistral": _DECODER | {"sliding_window": 5},
    "qwen2": {k: v for k, v in _DECODER.items() if k != "head_dim"}
    | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": _DECODER,
    "gemma": _DECODER,
}  # fmt: skip
"""Arguments of the configuration by model type."""

ARCHITECTURES = [
    (kind, architecture.name)
    for kind, family in FAMILIES.items()
    for architecture in family.architectures
]
HEADS = {
    "bert": "BertForMaskedLM", "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForTokenClassification", "mpnet": "MPNetModel",
    "distilbert": "DistilBertForQuestionAnswering", "vit": "ViTForImageClassification",
    "gpt2": "GPT2LMHeadModel", "opt": "OPTForCausalLM", "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForSequenceClassification", "gemma": "GemmaForCausalLM",
}  # fmt: skip
"""One architecture of each type, every task among them."""


def kind_of(name: str, kind: str) -> Any:
    """A network's class."""
    return getattr(_module(kind, "modeling"), name)


def made(kind: str, name: str, folder: Path, **settings: Any) -> nn.Module:
    """A random network, saved into the folder; weights large enough for outputs to differ."""
    torch.manual_seed(0)
    config = getattr(_module(kind, "configuration"), FAMILIES[kind].config)
    labels = 2 if name.endswith("QuestionAnswering") else 3
    network = kind_of(name, kind)(config(**SETTINGS[kind] | {"num_labels": labels} | settings))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    network.save_pretrained(folder)
    return network.eval()


def again(kind: str, name: str, folder: Path) -> Any:
    """The folder read by transformers itself, computing in float32."""
    return kind_of(name, kind).from_pretrained(folder, dtype=torch.float32).eval()


def imported(folder: Path, limits: Limits | None = None) -> HuggingFaceModel:
    """The folder read by us."""
    return read(folder, limits or Limits())


def samples(kind: str, names: list[str], count: int = 6) -> dict[str, Tensor]:
    """Inputs by name, in order; the second text is shorter than the others."""
    generator = torch.Generator().manual_seed(1)
    if kind == "vit":
        return {"pixel_values": torch.randn(count, 3, 16, 16, generator=generator)}
    ids = torch.randint(5, 99, (count, 10), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    ids[1, 7:] = 1 if FAMILIES[kind].offset or kind == "opt" else 0
    found = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: found[name] for name in names}


@torch.no_grad()
def expected(network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """What transformers' own forward pass gives, as the tensor that ours puts out."""
    output = network(**inputs)
    if hasattr(output, "start_logits"):
        return torch.stack((output.start_logits, output.end_logits), -1)
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


@torch.no_grad()
def given(model: HuggingFaceModel, inputs: dict[str, Tensor]) -> Tensor:
    """What the imported module puts out."""
    result: Tensor = model.module(*inputs.values())
    return result


def _module(kind: str, part: str) -> Any:
    package = FAMILIES[kind].package
    return import_module(f"transformers.models.{package}.{part}_{package}")
