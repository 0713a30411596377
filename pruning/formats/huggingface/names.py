"""Which parameter a tensor of the files is, by whatever name it was saved. Torch-free.

The same network stands in files under several names: with or without the prefix under which heads
hold their base model, with the norms' weights called gamma and beta, with a vision encoder's layers
under their older paths.
"""

import re
from collections.abc import Collection, Iterable, Iterator

from pruning.errors import SecateurError
from pruning.formats.huggingface.config import Plan
from pruning.formats.huggingface.texts import shown

_OLDER: dict[str, tuple[tuple[str, str], ...]] = {
    "vit": (
        ("encoder.layer.", "layers."),
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ),
}
_LEFT_OVER = re.compile(
    r"(^|\.)position_ids$|(^|\.)token_type_ids$|\.rotary_emb\.inv_freq$"
    r"|(^|\.)h\.\d+\.attn\.(bias|masked_bias)$|(^|\.)pooler\.|^cls\.seq_relationship\."
    r"|(^|\.)embeddings\.mask_token$"
)
"""Tensors that files carry and the network does not need: constants, and heads of pretraining."""
_HEADS = re.compile(
    r"^(cls|lm_head|classifier|pre_classifier|score|qa_outputs|vocab_transform|vocab_layer_norm"
    r"|vocab_projector)\."
)


def assign(paths: Collection[str], files: Iterable[str], plan: Plan) -> dict[str, str]:
    """Path of a parameter by the file's name of it; names that the network does not need are out.

    Args:
        paths: Every parameter's path, tied ones under each.
        files: Names of all tensors in the files.
        plan: The network.

    Raises:
        SecateurError: `model_invalid` for a tensor that belongs to no parameter, or two that
            belong to one.
    """
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    extra = []
    for name in files:
        path = next((c for c in _candidates(name, plan) if c in paths), None)
        if path is None:
            if not _needless(name, plan):
                extra.append(name)
        elif path in taken:
            raise SecateurError(
                "model_invalid",
                f"{shown(name)!r} and {shown(taken[path])!r} are the same parameter.",
                where=shown(name),
            )
        else:
            found[name], taken[path] = path, name
    if extra:
        raise SecateurError(
            "model_invalid",
            f"{plan.architecture.name} has no parameter for {_listed(extra)}.",
            where=shown(extra[0]),
            hint="Check architectures and model_type in config.json, or save the model again "
            "with save_pretrained.",
        )
    return found


def missing(paths: Collection[str], plan: Plan) -> SecateurError:
    """The error for parameters that no file has."""
    return SecateurError(
        "model_invalid",
        f"The files lack {_listed(sorted(paths))}, which {plan.architecture.name} needs.",
        where=shown(min(paths)),
        hint="Check architectures in config.json: a head that was never trained has no weights.",
    )


def _candidates(name: str, plan: Plan) -> Iterator[str]:
    prefix = f"{plan.family.prefix}."
    newer = name
    if name.endswith(("LayerNorm.gamma", "LayerNorm.beta")):
        newer = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
            "LayerNorm.beta", "LayerNorm.bias"
        )
    for spelled in dict.fromkeys((newer, _modern(newer, plan))):
        yield spelled
        yield prefix + spelled
        if spelled.startswith(prefix):
            yield spelled.removeprefix(prefix)


def _modern(name: str, plan: Plan) -> str:
    for older, newer in _OLDER.get(plan.family.package, ()):
        name = name.replace(older, newer)
    return name


def _needless(name: str, plan: Plan) -> bool:
    if _LEFT_OVER.search(name):
        return True
    return plan.architecture.task == "base" and _HEADS.match(name) is not None


def _listed(names: list[str]) -> str:
    some = ", ".join(shown(name) for name in names[:4])
    return some if len(names) <= 4 else f"{some} and {len(names) - 4} more"
