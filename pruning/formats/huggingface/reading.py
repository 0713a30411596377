"""A folder to a trainable module, its facts, and the ties between the two."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruning.axes import Declared
from pruning.errors import SecateurError
from pruning.facts import ModelFacts, TensorFact
from pruning.formats.bundle import Bundle, open_bundle
from pruning.formats.contract import Preprocessing, Tokenizer
from pruning.formats.facts import module_facts
from pruning.formats.failures import StepError
from pruning.formats.huggingface import config, image
from pruning.formats.huggingface.build import build, price, turned
from pruning.formats.huggingface.config import Plan
from pruning.formats.huggingface.forward import Pooling, accept, input_names
from pruning.formats.huggingface.model import HuggingFaceModel
from pruning.formats.huggingface.sentence import most_tokens, sentence
from pruning.formats.huggingface.shards import Shards, read_shards, weight_files
from pruning.formats.huggingface.texts import read_object, shown
from pruning.formats.huggingface.tokenizer import read_tokenizer
from pruning.formats.huggingface.weights import Bound, bind, load
from pruning.formats.limits import Limits

_TRIED_TOKENS = 16


def read_folder(source: Path, limits: Limits, declared: Declared | None = None) -> HuggingFaceModel:
    """Reads a folder, a .tar or a .zip; see `pruning.formats.huggingface.read`.

    Nothing is allocated before the network's numbers are counted and every tensor of the headers
    fits it.
    """
    with contextlib.ExitStack() as stack:
        bundle = stack.enter_context(open_bundle(source, limits))
        scratch = None
        if bundle.kind != "folder":
            scratch = tempfile.TemporaryDirectory()
            stack.callback(scratch.cleanup)
        model = _read(bundle, source, scratch, limits, declared)
        if scratch is not None:
            stack.pop_all()
        return model


def _read(
    bundle: Bundle,
    source: Path,
    scratch: "tempfile.TemporaryDirectory[str] | None",
    limits: Limits,
    declared: Declared | None,
) -> HuggingFaceModel:
    settings = _configuration(bundle, limits)
    found = sentence(bundle, limits)
    plan = config.plan(settings, hidden_states=found is not None)
    planned = weight_files(bundle, limits)
    place = Path(scratch.name) if scratch is not None else source
    shards = read_shards(bundle, planned, place, limits)
    bare = price(plan, limits)
    bounds = bind(bare, shards, plan, turned(bare))
    module = build(plan, Pooling(*found) if found is not None else None)
    load(module, bounds, shards)
    texts = _tokenizer(bundle, plan, limits)
    try:
        facts = _facts(module, plan, settings, shards, bounds, limits, declared)
    except StepError as error:
        # transformers built the network from checked sizes, and the inputs are ours.
        raise error.ours() from error.__cause__
    accept(module, facts.inputs)
    facts.text = texts is not None
    return HuggingFaceModel(
        module,
        facts,
        _weight_names(bounds),
        source,
        tokenizer=texts,
        preprocessing=_preprocessing(bundle, plan, limits),
        shards=shards,
        bounds=bounds,
        limits=limits,
        scratch=scratch,
    )


def _configuration(bundle: Bundle, limits: Limits) -> dict[str, Any]:
    if config.FILE not in bundle.sizes:
        raise SecateurError(
            "model_invalid", f"There is no {config.FILE} beside the weights.", where=config.FILE,
            hint="Upload what save_pretrained wrote, without a folder around it but one.",
        )  # fmt: skip
    return read_object(bundle, config.FILE, limits.text_bytes)


def _tokenizer(bundle: Bundle, plan: Plan, limits: Limits) -> Tokenizer | None:
    if plan.most_tokens is None:
        return None
    most = min(plan.most_tokens, most_tokens(bundle, limits) or plan.most_tokens)
    vocabulary = plan.settings.get(plan.family.vocabulary, 1 << 60)
    return read_tokenizer(bundle, input_names(plan), most, plan.pad, vocabulary, limits)


def _preprocessing(bundle: Bundle, plan: Plan, limits: Limits) -> Preprocessing | None:
    if plan.most_tokens is not None:
        return None
    size, channels = _image_size(plan)
    return image.preprocessing(bundle, size, channels, limits)


def _image_size(plan: Plan) -> tuple[int, int]:
    return plan.settings.get("image_size", 224), plan.settings.get("num_channels", 3)


def _facts(
    module: nn.Module,
    plan: Plan,
    settings: dict[str, Any],
    shards: Shards,
    bounds: list[Bound],
    limits: Limits,
    declared: Declared | None,
) -> ModelFacts:
    version = shown(str(settings.get("transformers_version", "")))
    return module_facts(
        module,
        _inputs(plan),
        format="huggingface",
        version=version,
        weight_names=_weight_names(bounds),
        dtypes={n: shards.entry(n).dtype.name for bound in bounds for n in bound.names},
        limits=limits,
        samples=_samples(plan),
        declared=declared,
        producer=f"transformers {version}".strip(),
    )


def _inputs(plan: Plan) -> list[TensorFact]:
    if plan.most_tokens is None:
        size, channels = _image_size(plan)
        shape: list[int | str] = ["batch", channels, size, size]
        return [TensorFact(name="pixel_values", dtype="float32", shape=shape)]
    return [
        TensorFact(name=name, dtype="int64", shape=["batch", "sequence"])
        for name in input_names(plan)
    ]


def _samples(plan: Plan) -> Callable[[int], tuple[Tensor, ...]]:
    """Valid inputs for a batch size; a larger batch begins with the smaller one's samples."""

    def tokens(batch: int) -> tuple[Tensor, ...]:
        length = min(_TRIED_TOKENS, plan.most_tokens or 1)
        generator = torch.Generator().manual_seed(0)
        vocabulary = plan.settings.get(plan.family.vocabulary, 512)
        ids = torch.randint(0, vocabulary, (batch, length), generator=generator)
        if plan.pad is not None and vocabulary > 1:
            other = (plan.pad + 1) % vocabulary
            ids = ids.masked_fill(ids == plan.pad, other)
        filled = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return tuple(filled.get(name, torch.zeros_like(ids)) for name in input_names(plan))

    def pixels(batch: int) -> tuple[Tensor, ...]:
        size, channels = _image_size(plan)
        generator = torch.Generator().manual_seed(0)
        return (torch.randn((batch, channels, size, size), generator=generator),)

    return pixels if plan.most_tokens is None else tokens


def _weight_names(bounds: list[Bound]) -> dict[str, str]:
    """Each parameter path's tensor in the files."""
    return {path: bound.names[0] for bound in bounds for path in bound.paths}
