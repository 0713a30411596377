"""Hostile Hugging Face folders: no code of theirs runs, and none costs time or memory."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.security.samples import SAMPLES

Refused = Callable[..., dict[str, Any]]

HUGE = 10**9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid folder of a small BERT, to be spoilt."""
    return SAMPLES["huggingface"].make(tmp_path / "upload")


def configured(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("named", ["auto_map", "custom_pipelines"])
def test_code_beside_the_weights_never_runs(named, folder, tmp_path, refused: Refused):
    marker = tmp_path / "marker"
    body = f"open({str(marker)!r}, 'w').close()\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "__init__.py", "sitecustomize.py"):
        (folder / name).write_text(body)
    value = {"AutoModel": "modeling_evil.Evil", "AutoConfig": "configuration_evil.Evil"}
    said = refused("model", configured(folder, **{named: value}), marker)
    assert (said["code"], said["where"]) == ("unsupported_format", named)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"_attn_implementation": "somebody/kernel:run"}, "_attn_implementation"),
        ({"attn_implementation": {"": "somebody/kernel"}}, "attn_implementation"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"use_kernels": True}, "use_kernels"),
        ({"model_type": "../../bert"}, "model_type"),
        ({"model_type": "os"}, "model_type"),
        ({"architectures": ["system"]}, "architectures"),
        ({"architectures": ["GPT2LMHeadModel"]}, "architectures"),
        ({"model_type": "gpt2"}, "architectures"),
        ({"hidden_act": "os.system"}, "hidden_act"),
        ({"hidden_size": HUGE}, "hidden_size"),
        ({"vocab_size": HUGE}, "vocab_size"),
        ({"num_hidden_layers": 1_000_000}, "num_hidden_layers"),
        ({"max_position_embeddings": HUGE}, "max_position_embeddings"),
        ({"intermediate_size": HUGE}, "intermediate_size"),
        ({"id2label": None, "num_labels": HUGE}, "num_labels"),
        ({"hidden_size": -8}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": "8"}, "hidden_size"),
        ({"num_attention_heads": 3}, "config.json"),
        ({"_attn_implementation_internal": "x/y"}, "_attn_implementation_internal"),
        ({"__class__": {"x": 1}}, "__class__"),
    ],
)
def test_a_configuration_that_asks_for_too_much_is_refused(
    changes, where, folder, refused: Refused
):
    assert refused("model", configured(folder, **changes))["where"] == where


def test_sizes_within_their_bounds_are_priced_before_anything_is_allocated(
    folder, refused: Refused
):
    path = configured(
        folder, hidden_size=65_536, num_hidden_layers=200, intermediate_size=500_000,
        num_attention_heads=1_024,
    )  # fmt: skip
    assert refused("model", path)["code"] == "model_too_large"


@pytest.mark.parametrize(
    "text",
    [
        '{"model_type": "bert", "model_type": "gpt2"}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"model_type": NaN}',
        '{"hidden_size": 1e999}',
        '{"hidden_size": ' + "9" * 1_000_000 + "}",
        '"bert"',
        "",
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
        '{"model_type": "bert"' + " " * (5 << 20) + "}",
    ],
    ids=[
        "twice",
        "lists",
        "objects",
        "nan",
        "infinity",
        "digits",
        "text",
        "empty",
        "bytes",
        "long",
    ],
)
def test_a_configuration_that_is_no_plain_json_is_refused(text, folder, refused: Refused):
    (folder / "config.json").write_text(text)
    refused("model", folder)


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd", "/etc/passwd", "missing.safetensors", "config.json", "", 3, None,
        "sub/model.safetensors", "../model.safetensors", ["model.safetensors"],
    ],
)  # fmt: skip
def test_an_index_leads_nowhere_but_to_the_files_beside_it(name, folder, refused: Refused):
    names = load_file(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model.safetensors")}
    index["weight_map"][next(iter(names))] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refused("model", folder)["code"] == "model_invalid"


def test_a_tensor_in_another_shard_than_the_index_says_is_refused(folder, refused: Refused):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    half = len(names) // 2
    for number, part in enumerate((names[:half], names[half:])):
        save_file({n: tensors[n] for n in part}, folder / f"part-{number}.safetensors")
    places = {n: f"part-{int(i >= half)}.safetensors" for i, n in enumerate(names)}
    places[names[0]] = "part-1.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert refused("model", folder)["where"] == names[0]


@pytest.mark.parametrize("length", [0, 2**63 - 1, 2**64 - 1, 1 << 24])
def test_a_header_of_false_length_is_refused(length, folder, refused: Refused):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refused("model", folder)


def rewritten(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


WEIGHT = "bert.encoder.layer.0.intermediate.dense.weight"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_named(value, folder, refused: Refused):
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors[WEIGHT][0, 0] = value

    said = refused("model", rewritten(folder, spoil))
    assert (said["code"], said["where"]) == ("weights_non_finite", WEIGHT)


@pytest.mark.parametrize("kind", ["missing", "extra", "shape", "type"])
def test_tensors_that_are_not_the_networks_are_named(kind, folder, refused: Refused):
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        if kind == "missing":
            del tensors[WEIGHT]
        elif kind == "extra":
            tensors["bert.encoder.layer.1.intermediate.dense.weight"] = tensors[WEIGHT]
        elif kind == "shape":
            tensors[WEIGHT] = tensors[WEIGHT].T.copy()
        else:
            tensors[WEIGHT] = tensors[WEIGHT].astype(np.int32)

    said = refused("model", rewritten(folder, spoil))
    assert said["code"] == "model_invalid"
    assert said["where"].endswith("intermediate.dense.weight")


def test_pickled_weights_alone_are_never_opened(folder, tmp_path, refused: Refused):
    marker = tmp_path / "marker"
    (folder / "model.safetensors").unlink()
    command = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    (folder / "pytorch_model.bin").write_bytes(command)
    assert refused("model", folder, marker)["code"] == "unsupported_format"


def _nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(depth):
        inner = {"type": "Sequence", "normalizers": [inner]}
    return inner


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": _nested(200)},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 100_000}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a|" * 5_000 + ")" * 5_000},
                        "content": ""}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated",
                           "invert": False}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"model": None},
        {"model": {"type": "Evil"}},
        {"model": {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}},
        {"added_tokens": "all"},
    ],
    ids=["deep", "many", "pattern", "broken", "charsmap", "none", "kind", "negative", "tokens"],
)  # fmt: skip
def test_a_tokenizer_that_only_keeps_its_parser_busy_is_refused(changes, folder, refused: Refused):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    said = refused("model", folder)
    assert said["where"] == "tokenizer.json"


@pytest.mark.parametrize("path", ["../../../etc", "/etc", "1_Pooling", None, 3, {"a": 1}])
def test_pooling_is_read_from_the_folder_alone(path, folder, refused: Refused):
    kinds = ("Transformer", "Pooling")
    steps = [{"type": f"sentence_transformers.models.{kind}", "path": ""} for kind in kinds]
    steps[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(steps))
    assert refused("model", folder)["code"] == "unsupported_format"


def test_a_module_of_the_uploads_own_is_refused(folder, tmp_path, refused: Refused):
    marker = tmp_path / "marker"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    (folder / "modules.json").write_text(json.dumps([{"type": "evil.Transformers", "path": ""}]))
    assert refused("model", folder, marker)["where"] == "modules.json"


@pytest.mark.parametrize("part", ['{"a":1},', "{},", "[],"])
def test_json_that_would_fill_memory_is_refused_before_it_is_parsed(part, folder, refused: Refused):
    path = folder / "config.json"
    path.write_text(
        f'{path.read_text().rstrip()[:-1]}, "z": [{part * (4_000_000 // len(part))}1]}}'
    )
    said = refused("model", folder)
    assert (said["code"], said["where"]) == ("model_too_large", "config.json")


def test_a_tokenizer_that_would_fill_memory_is_refused(folder, refused: Refused):
    text = '{"model": {}, "z": [' + "[]," * (10 << 20) + "1]}"
    (folder / "tokenizer.json").write_text(text)
    said = refused("model", folder)
    assert (said["code"], said["where"]) == ("model_too_large", "tokenizer.json")


def test_images_that_take_too_much_by_themselves_are_refused(tmp_path, refused: Refused):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=2, num_hidden_layers=1, num_attention_heads=1, intermediate_size=2,
        image_size=4096, patch_size=64, num_channels=32,
    )  # fmt: skip
    ViTModel(config).save_pretrained(tmp_path / "upload")
    said = refused("model", tmp_path / "upload")
    assert (said["code"], said["where"]) == ("model_too_large", "pixel_values")
