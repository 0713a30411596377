"""What sentence-transformers adds to a folder: how tokens become one vector a text. Torch-free."""

from typing import Any, Literal, NamedTuple

from pruning.errors import SecateurError
from pruning.formats.bundle import Bundle
from pruning.formats.huggingface.texts import parse, read_object, shown
from pruning.formats.limits import Limits

MODULES = "modules.json"

_MODES: dict[str, Literal["cls", "mean", "max"]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}


class Sentence(NamedTuple):
    """Pooling as in `forward.Pooling`; None where the folder has none."""

    mode: Literal["cls", "mean", "max"]
    normalize: bool


def sentence(bundle: Bundle, limits: Limits) -> Sentence | None:
    """How the folder pools tokens, None for one that is no sentence encoder.

    Raises:
        SecateurError: `unsupported_format` for modules that are not read.
    """
    if MODULES not in bundle.sizes:
        return None
    steps = parse(bundle.read(MODULES, limits.text_bytes), MODULES)
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise _unread(MODULES, "it is no list of modules")
    kinds = [str(step.get("type", "")).rpartition(".")[2] for step in steps]
    if kinds not in (["Transformer"], ["Transformer", "Pooling"],
                     ["Transformer", "Pooling", "Normalize"]):  # fmt: skip
        raise _unread(MODULES, f"it has the modules {shown(', '.join(kinds))}")
    if steps[0].get("path", "") != "":
        raise _unread(MODULES, "the network lies in a folder of its own")
    if len(kinds) == 1:
        return None
    return Sentence(_mode(bundle, steps[1].get("path"), limits), len(kinds) == 3)


def most_tokens(bundle: Bundle, limits: Limits) -> int | None:
    """The length at which the folder cuts its texts."""
    name = "sentence_bert_config.json"
    if name not in bundle.sizes:
        return None
    most = read_object(bundle, name, limits.text_bytes).get("max_seq_length")
    return most if type(most) is int and most > 0 else None


def _mode(bundle: Bundle, path: Any, limits: Limits) -> Literal["cls", "mean", "max"]:
    name = f"{path}/config.json"
    if name not in bundle.sizes:
        raise _unread(MODULES, f"{shown(name)} is not there")
    config = read_object(bundle, name, limits.text_bytes)
    flags = {k for k, v in config.items() if k.startswith("pooling_mode_") and v is True}
    named = config.get("pooling_mode")
    if isinstance(named, str) and named in _MODES.values():
        return next(mode for mode in _MODES.values() if mode == named)
    if len(flags) != 1 or not flags <= _MODES.keys():
        raise _unread(name, f"its pooling is {shown(', '.join(sorted(flags)) or 'none')}")
    return _MODES[flags.pop()]


def _unread(where: str, reason: str) -> SecateurError:
    return SecateurError(
        "unsupported_format",
        f"The sentence encoder's {shown(where)} is not read: {reason}.",
        where=shown(where),
        hint="Read are Transformer, Pooling (first token, mean or max) and Normalize. Leave "
        f"{MODULES} out to prune the network alone.",
    )
