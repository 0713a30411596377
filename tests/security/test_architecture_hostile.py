"""Hostile architecture.json files: nothing in them names anything of ours, and nothing is free."""

import copy
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.security.test_state_dict_hostile import ARCHITECTURE

Refused = Callable[..., dict[str, Any]]
WEIGHTS = {"l.weight": np.ones((4, 4), np.float32), "l.bias": np.ones(4, np.float32)}


def upload(folder: Path, text: str | bytes, weights: dict[str, np.ndarray] | None = None) -> Path:
    folder.mkdir()
    raw = text if isinstance(text, bytes) else text.encode()
    (folder / "architecture.json").write_bytes(raw)
    save_file(WEIGHTS if weights is None else weights, folder / "model.safetensors")
    return folder


def changed(**parts: Any) -> str:
    return json.dumps(copy.deepcopy(ARCHITECTURE) | parts)


def call(name: str, target: str, **args: Any) -> dict[str, Any]:
    return {"name": name, "op": "function", "target": target, "args": args}


def ref(name: str) -> dict[str, str]:
    return {"node": name}


LINEAR = {"name": "h", "op": "layer", "target": "l", "args": {"input": ref("x")}}


def graph(*nodes: dict[str, Any]) -> str:
    return changed(graph=[LINEAR, *nodes], outputs=[{"name": "y", "node": nodes[-1]["name"]}])


def layer(kind: str, **args: Any) -> str:
    return changed(layers={"l": {"kind": kind, "args": args}})


def chain(count: int, *first: dict[str, Any], **step: Any) -> str:
    nodes = [call("n0", "identity", input=ref("h")), *first]
    nodes += [
        call(f"n{i + 1}", **{k: v(f"n{i}") if callable(v) else v for k, v in step.items()})
        for i in range(count)
    ]
    return graph(*nodes)


def named(path: str) -> str:
    return changed(layers=ARCHITECTURE["layers"] | {path: {"kind": "ReLU"}})


TEXT = json.dumps(ARCHITECTURE)
DOCUMENTS: dict[str, str | bytes] = {
    "nothing": "",
    "no json": "{",
    "no object": "[]",
    "not utf-8": b"\xff\xfe{}",
    "keys twice": TEXT.replace('"version": 1', '"version": 1, "version": 1'),
    "layers twice": TEXT.replace('"layers": {', '"layers": {"l": {"kind": "ReLU"}, '),
    "NaN": TEXT.replace('"version": 1', '"version": NaN'),
    "infinity": graph(call("y", "mul", input=ref("h"), other=1.5)).replace("1.5", "Infinity"),
    "deep lists": '{"graph": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "deep objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "digits": TEXT.replace('"in_features": 4', '"in_features": ' + "9" * 100_000),
    "exponent": TEXT.replace('"in_features": 4', '"in_features": 4e999'),
    "long": TEXT + " " * (5 << 20),
    "newer version": changed(version=2),
    "unknown key": changed(loader="pickle"),
    "wrong type": changed(layers=[]),
    "no inputs": changed(inputs=[]),
    "input of many sizes": changed(inputs=[{"name": "x", "dtype": "float32", "shape": [4] * 40}]),
    "input of terabytes": changed(
        inputs=[{"name": "x", "dtype": "float32", "shape": ["b", 2**30, 2**30, 4]}]
    ),
    "input of size 0": changed(inputs=[{"name": "x", "dtype": "float32", "shape": ["b", 0]}]),
    "input twice": changed(inputs=[*ARCHITECTURE["inputs"], *ARCHITECTURE["inputs"]]),  # type: ignore[misc]
    "many nodes": changed(graph=[{}] * 6_001),
    "many layers": changed(layers={f"l{i}": {} for i in range(30_000)}),
    "node of itself": graph(call("y", "add", input=ref("y"), other=1)),
    "cycle": graph(call("a", "relu", input=ref("b")), call("b", "relu", input=ref("a"))),
    "node of nothing": graph(call("y", "relu", input=ref("z"))),
    "node twice": graph(call("h", "relu", input=ref("x"))),
    "output of nothing": changed(outputs=[{"name": "y", "node": "z"}]),
    "output that is a size": graph(call("y", "shape", input=ref("h"), dim=0)),
    "unknown kind": layer("Lambda", code="print(1)"),
    "private kind": layer("__class__"),
    "kind by path": layer("os.system"),
    "unknown function": graph(call("y", "exec", input=ref("h"))),
    "dunder function": graph(call("y", "__reduce__", input=ref("h"))),
    "torch by name": graph(call("y", "torch.load", input=ref("h"))),
    "argument of torch": layer("Linear", in_features=4, out_features=4, device="cuda"),
    "argument of a function": graph(call("y", "relu", input=ref("h"), out=ref("h"))),
    "text for a size": layer("Linear", in_features="4", out_features=4),
    "true for a size": layer("Linear", in_features=True, out_features=4),
    "fraction for a size": layer("Linear", in_features=4.0, out_features=4),
    "node for a size": layer("Linear", in_features=ref("x"), out_features=4),
    "negative size": layer("Linear", in_features=-4, out_features=4),
    "giant layer": layer("Linear", in_features=2**31 - 1, out_features=2**31 - 1),
    "giant normalisation": layer("LayerNorm", normalized_shape=[2**31 - 1] * 8),
    "giant recurrence": layer("LSTM", input_size=4, hidden_size=2**31 - 1, num_layers=128),
    "many layers in one": layer("LSTM", input_size=4, hidden_size=4, num_layers=10**9),
    "many stacks": changed(layers={
        "l" * (i + 1): {"kind": "TransformerEncoder", "args": {"d_model": 4, "nhead": 1,
                                                         "num_layers": 128}}
        for i in range(200)}),
    "groups that do not fit": layer("Conv1d", in_channels=4, out_channels=4, kernel_size=1,
                                    groups=3),
    "path of a method": named("forward"),
    "path of a flag": named("training"),
    "private path": named("_modules"),
    "path of the graph": named("_secateur_graph"),
    "path inside a layer": named("l.inner"),
    "path of dots": named("a..b"),
    "path of many parts": named(".".join("a" * 100)),
    "path that does not print": named("a\u202eb"),
    "parameter of nothing": graph({"name": "y", "op": "parameter", "target": "__class__"}),
    "private parameter": graph({"name": "y", "op": "parameter", "target": "_parameters.l"}),
    "constant of nothing": graph({"name": "y", "op": "constant", "target": "c"}),
    "constant of terabytes": changed(constants={"c": {"dtype": "float32", "shape": [2**30] * 4}}),
    "constant of another shape": changed(
        constants={"c": {"dtype": "float32", "shape": [3], "values": [1.0]}}),
    "constant out of range": changed(
        constants={"c": {"dtype": "int8", "shape": [1], "values": [1000]}}),
    "constant of texts": changed(
        constants={"c": {"dtype": "float32", "shape": [1], "values": ["import os"]}}),
    "ties of nothing": changed(ties=[["l.weight", "k.weight"]]),
    "ties of other shapes": changed(ties=[["l.weight", "l.bias"]]),
    "doubling": chain(60, target="cat", tensors=lambda n: [ref(n), ref(n)]),
    "doubling at once": graph(call("y", "cat", tensors=[ref("h")] * 5_000)),
    "repeating": graph(call("y", "repeat", input=ref("h"), size=[2**30, 2**30])),
    "padding": graph(call("y", "pad", input=ref("h"), pad=[2**40, 2**40])),
    "scaling": graph(call("i", "reshape", input=ref("h"), shape=[-1, 1, 2, 2]),
                     call("y", "interpolate", input=ref("i"), scale_factor=60_000.0)),
    "scaling beyond": graph(call("i", "reshape", input=ref("h"), shape=[-1, 1, 2, 2]),
                            call("y", "interpolate", input=ref("i"), scale_factor=1e300)),
    "range": graph(call("y", "arange", end=10**15)),
    "filling": graph(call("y", "full", size=[10**6, 10**6], fill_value=1.0)),
    "outer": graph(call("a", "arange", end=10**6), call("y", "outer", input=ref("a"),
                                                        vec2=ref("a"))),
    "one hot": graph(call("a", "arange", end=10**4),
                     call("y", "one_hot", tensor=ref("a"), num_classes=2**31 - 1)),
    "sizes of many digits": chain(
        30, call("n0b", "shape", input=ref("n0"), dim=0),
        target="pow", input=lambda n: ref("n0b" if n == "n0" else n), exponent=64),
    "power of a size": graph(call("s", "shape", input=ref("h"), dim=0),
                             call("y", "pow", input=ref("s"), exponent=10**9)),
    "division by zero": graph(call("s", "shape", input=ref("h"), dim=0),
                              call("t", "floor_divide", input=ref("s"), other=0),
                              call("y", "full", size=[ref("t")], fill_value=1.0)),
    "a list as a number": graph(call("c", "chunk", input=ref("h"), chunks=2),
                                call("y", "mul", input=ref("c"), other=10**9)),
    "an index of nothing": graph(call("y", "getitem", input=ref("h"), index={"eval": "1"})),
    "an index of a mask": graph(call("m", "gt", input=ref("h"), other=0.0),
                                call("y", "getitem", input=ref("h"), index=[ref("m")])),
    "einsum of many": graph(call("y", "einsum", equation="ab,cd,ef->abcdef",
                                 operands=[ref("h")] * 3)),
    "einsum of code": graph(call("y", "einsum", equation="__import__('os')", operands=[ref("h")])),
    "einsum of a giant": graph(call("r", "full", size=[10**5], fill_value=1.0),
                               call("y", "einsum", equation="a,b->ab",
                                    operands=[ref("r"), ref("r")])),
    "attention of a giant": graph(
        call("q", "full", size=[1, 1, 10**5, 2], fill_value=1.0),
        call("y", "scaled_dot_product_attention", query=ref("q"), key=ref("q"), value=ref("q"))),
    "unfolding": graph(call("i", "reshape", input=ref("h"), shape=[-1, 1, 2, 2]),
                       call("y", "unfold", input=ref("i"), kernel_size=1, padding=10**5)),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_hostile_documents_are_refused(name: str, tmp_path: Path, refused: Refused) -> None:
    refused("model", upload(tmp_path / "m", DOCUMENTS[name]))


TENSORS: dict[str, dict[str, np.ndarray]] = {
    "missing": {"l.weight": WEIGHTS["l.weight"]},
    "unknown": WEIGHTS | {"l.extra": np.ones(1, np.float32)},
    "turned": WEIGHTS | {"l.weight": np.ones((4, 5), np.float32)},
    "integers": WEIGHTS | {"l.weight": np.ones((4, 4), np.int64)},
    "not finite": WEIGHTS | {"l.weight": np.full((4, 4), np.nan, np.float32)},
}


def test_json_that_would_fill_memory_is_refused(tmp_path: Path, refused: Refused) -> None:
    text = changed().rstrip().removesuffix("}") + ', "z": [' + '{"a":1},' * 500_000 + "1]}"
    assert refused("model", upload(tmp_path / "a", text))["code"] == "model_too_large"


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit_are_refused(name: str, tmp_path: Path, refused: Refused) -> None:
    said = refused("model", upload(tmp_path / "m", TEXT, TENSORS[name]))
    assert said["where"].startswith("l.")


def giant_header(folder: Path) -> None:
    upload(folder, TEXT)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def giant_tensor(folder: Path) -> None:
    upload(folder, TEXT)
    header = {"l.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)


def two_files(folder: Path) -> None:
    upload(folder, TEXT)
    (folder / "more.safetensors").write_bytes((folder / "model.safetensors").read_bytes())


def script_beside(folder: Path) -> None:
    upload(folder, TEXT)
    (folder / "modeling.py").write_text("import os")


def pickle_beside(folder: Path) -> None:
    upload(folder, TEXT)
    (folder / "model.pkl").write_bytes(b"cos\nsystem\n.")


def link(folder: Path) -> None:
    upload(folder, TEXT)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/etc/passwd")


def alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "architecture.json").write_text(TEXT)


def bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("architecture.json", TEXT)
        archive.writestr("model.safetensors", bytes(200 << 20))


def traversal(folder: Path) -> None:
    with zipfile.ZipFile(folder, "w") as archive:
        archive.writestr("architecture.json", TEXT)
        archive.writestr("../model.safetensors", b"x")


@pytest.mark.parametrize(
    "make",
    [giant_header, giant_tensor, two_files, script_beside, pickle_beside, link, alone, bomb,
     traversal],
)  # fmt: skip
def test_hostile_containers_are_refused(
    make: Callable[[Path], None], tmp_path: Path, refused: Refused
) -> None:
    make(tmp_path / "m")
    refused("model", tmp_path / "m")


def test_the_same_document_without_malice_is_read(
    tmp_path: Path, intake: Callable[[str, Path], dict[str, Any]]
) -> None:
    said = intake("model", upload(tmp_path / "m", graph(call("y", "relu", input=ref("h")))))
    assert said["crash"] is None
    assert said["code"] is None, said
