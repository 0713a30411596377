"""Hostile torch.export archives: nothing in them runs, each ends in a refusal with its code."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pruning.formats.pt2_cases import (
    CONSTANTS,
    DOCUMENT,
    WEIGHTS,
    archive,
    changed,
    cnn,
    exported,
    graph,
    members,
)

SYMBOL = "Symbol('s77', positive=True, integer=True)"
Refused = Callable[..., dict[str, Any]]


class Runs:
    """What a pickle of it does when it is loaded: it makes the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def code(marker: Path) -> str:
    """An expression that makes the marker file."""
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive that is read."""
    module, inputs = cnn()
    return exported(tmp_path_factory.mktemp("sound"), module.eval(), inputs)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that an attack would make."""
    return tmp_path / "marker"


def _pickled(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Runs(marker), buffer)
    return buffer.getvalue()


def test_pickled_sample_inputs_are_never_opened(sound: Path, tmp_path: Path, marker: Path) -> None:
    from pruning.formats.limits import Limits
    from pruning.formats.pt2 import read

    parts = members(sound) | {"data/sample_inputs/model.pt": _pickled(marker)}
    model = read(archive(tmp_path / "a.pt2", parts), Limits())
    (written,) = model.write(tmp_path, "b")
    torch.export.load(written)
    assert not marker.exists()
    torch.load(io.BytesIO(parts["data/sample_inputs/model.pt"]), weights_only=False)
    assert marker.exists(), "the attack would not have worked"


@pytest.mark.parametrize("config", [WEIGHTS, CONSTANTS])
def test_pickled_tensors_are_refused(
    sound: Path, tmp_path: Path, marker: Path, refused: Refused, config: str
) -> None:
    folder = config.rpartition("/")[0]
    leaf = "weight_0" if config == WEIGHTS else "tensor_0"
    parts = members(sound)
    document = json.loads(parts[config])
    meta = next(iter(json.loads(parts[WEIGHTS])["config"].values()))["tensor_meta"]
    entry = {"path_name": leaf, "is_param": False, "use_pickle": True, "tensor_meta": meta}
    document["config"]["evil" if config == CONSTANTS else "stem.weight"] = entry
    parts |= {config: json.dumps(document).encode(), f"{folder}/{leaf}": _pickled(marker)}
    said = refused("model", archive(tmp_path / "a.pt2", parts), marker)
    assert said["code"] == "model_pickled"


@pytest.mark.parametrize(
    "name",
    [
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "data/weights/model.pt",
        "data/constants/model.pt",
    ],
)
def test_members_that_torch_would_unpickle_are_refused(
    sound: Path, tmp_path: Path, marker: Path, refused: Refused, name: str
) -> None:
    parts = members(sound) | {name: pickle.dumps(Runs(marker))}
    said = refused("model", archive(tmp_path / "a.pt2", parts), marker)
    assert (said["code"], said["where"]) == ("model_pickled", name)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.os.system",
        "torch.hub.load",
        "torch.load",
        "torch.ops.load_library",
        "torch.__builtins__.eval",
        "torch.ops.aten.__class__.__base__",
        "torch.ops.aten.relu.__init__",
        "torch.ops.mine.custom.default",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.set_.source_Storage",
        "torch.ops.aten.randn.default",
        "torch.ops.aten.nonzero.default",
        "torch.ops.aten.empty.memory_format",
        "torch.ops.aten.relu.out",
        "torch.ops.higher_order.cond",
        "_operator.pow",
        "_operator.attrgetter",
        "math.factorial",
        "#extension:thing",
        "builtins.eval",
    ],
)
def test_operators_that_are_not_on_the_list_are_refused(
    sound: Path, tmp_path: Path, marker: Path, refused: Refused, target: str
) -> None:
    def attack(document: Any) -> None:
        node = next(n for n in graph(document)["nodes"] if "linear" in n["target"])
        node["target"] = target
        node["inputs"][0]["arg"] = {"as_string": f"touch {marker}"}

    path = changed(sound, tmp_path / "a.pt2", DOCUMENT, attack)
    assert refused("model", path, marker)["code"] == "operator_unsupported"


def _as_operator(document: Any, marker: Path) -> None:
    node = graph(document)["nodes"][0]
    node["inputs"][0]["arg"] = {"as_operator": "torch.os.system"}


def _size(text: str) -> Callable[[Any, Path], None]:
    def attack(document: Any, marker: Path) -> None:
        said = text.replace("CODE", code(marker))
        graph(document)["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = said

    return attack


def _name(document: Any, marker: Path) -> None:
    text = json.dumps(graph(document)).replace('"linear"', json.dumps(f"y={code(marker)}"))
    document["graph_module"]["graph"] = json.loads(text)


def _argument_name(document: Any, marker: Path) -> None:
    graph(document)["nodes"][0]["inputs"][0]["name"] = code(marker)


def _defaultdict(document: Any, marker: Path) -> None:
    signature = document["graph_module"]["module_call_graph"][0]["signature"]
    leaf = {"type": None, "context": None, "children_spec": []}
    context = {"default_factory_module": "this", "default_factory_name": "s", "dict_context": ["a"]}
    tree = {"type": "collections.defaultdict", "context": context, "children_spec": [leaf]}
    signature["out_spec"] = json.dumps([1, tree])


def _path(document: Any, marker: Path) -> None:
    spec = document["graph_module"]["signature"]["input_specs"][0]["parameter"]
    spec["parameter_name"] = "__class__.__init__.weight"


def _reserved(document: Any, marker: Path) -> None:
    text = json.dumps(graph(document)).replace('"linear"', '"torch"')
    document["graph_module"]["graph"] = json.loads(text)


def _cycle(document: Any, marker: Path) -> None:
    nodes = graph(document)["nodes"]
    nodes[0]["inputs"][0]["arg"] = {"as_tensor": {"name": nodes[-1]["name"]}}


def _twice(document: Any, marker: Path) -> None:
    nodes = graph(document)["nodes"]
    nodes.append(nodes[-1])


def _verifier(document: Any, marker: Path) -> None:
    document["verifiers"] = ["MINE"]


def _kind(document: Any, marker: Path) -> None:
    graph(document)["nodes"] = {"0": graph(document)["nodes"][0]}


def _sub_graph(document: Any, marker: Path) -> None:
    node = graph(document)["nodes"][0]
    node["target"] = "torch.ops.higher_order.wrap_with_set_grad_enabled"
    inner = {"inputs": 3, "outputs": [{}], "nodes": [None], "tensor_values": []}
    node["inputs"] = [{"arg": {"as_bool": False}}, {"arg": {"as_graph": {"graph": inner}}}]


def _custom_object(document: Any, marker: Path) -> None:
    graph(document)["custom_obj_values"] = {"o": {"name": "o", "class_fqn": "os.system"}}


ATTACKS: dict[str, tuple[str, Callable[[Any, Path], None]]] = {
    "an operator as an argument": ("model_invalid", _as_operator),
    "code as a size": ("model_invalid", _size("CODE")),
    "code beside a symbol": ("model_invalid", _size(f"Add({SYMBOL}, CODE)")),
    "code in a symbol's name": ("model_invalid", _size('Symbol("CODE", integer=True)')),
    "code in an assumption": ("model_invalid", _size("Symbol('s77', positive=CODE)")),
    "attributes of a symbol": ("model_invalid", _size(f"{SYMBOL}.__class__.__mro__")),
    "a lambda": ("model_invalid", _size("(lambda: CODE)()")),
    "an enormous power": ("model_invalid", _size("Pow(Integer(9), Integer(999999999))")),
    "a tower of powers": (
        "model_invalid",
        _size("Pow(Pow(Pow(Pow(Integer(9), Integer(4)), Integer(4)), Integer(4)), Integer(4))" * 1),
    ),
    "a long product": ("model_invalid", _size("*".join(["9223372036854775807"] * 90))),
    "brackets without end": ("model_invalid", _size("(" * 1999)),
    "code as a variable's name": ("model_invalid", _name),
    "code as an argument's name": ("model_invalid", _argument_name),
    "a dictionary that imports a module": ("model_invalid", _defaultdict),
    "a parameter in a class": ("model_invalid", _path),
    "a variable called torch": ("model_invalid", _reserved),
    "a cycle": ("model_invalid", _cycle),
    "one name for two values": ("model_invalid", _twice),
    "a verifier of one's own": ("model_invalid", _verifier),
    "an object for a list": ("model_invalid", _kind),
    "a block of another form": ("model_invalid", _sub_graph),
    "an object of a class": ("model_pickled", _custom_object),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_documents_with_something_else_in_them_are_refused(
    sound: Path, tmp_path: Path, marker: Path, refused: Refused, name: str
) -> None:
    expected, attack = ATTACKS[name]
    path = changed(sound, tmp_path / "a.pt2", DOCUMENT, lambda d: attack(d, marker))
    assert refused("model", path, marker)["code"] == expected


def test_guards_traces_and_module_names_never_reach_torch(
    sound: Path, tmp_path: Path, marker: Path
) -> None:
    from pruning.formats.limits import Limits
    from pruning.formats.pt2 import read

    def attack(document: Any) -> None:
        document["guards_code"] = [code(marker)]
        document["graph_module"]["metadata"] = {"custom": code(marker)}
        for node in graph(document)["nodes"]:
            node["metadata"] = {
                "nn_module_stack": f"a,b,{code(marker)}",
                "source_fn_stack": "x,torch.os.system",
                "stack_trace": code(marker),
                "custom": "}",
                "from_node": "[{",
            }

    model = read(changed(sound, tmp_path / "a.pt2", DOCUMENT, attack), Limits())
    (written,) = model.write(tmp_path, "b")
    torch.export.load(written).module()(torch.randn(3, 3, 8, 8))
    assert not marker.exists()
    assert b"touch" not in written.read_bytes()


def _meta(**values: Any) -> Callable[[Any], None]:
    def attack(document: Any) -> None:
        document["config"]["stem.weight"]["tensor_meta"] |= values

    return attack


def _sizes(*values: int) -> list[dict[str, int]]:
    return [{"as_int": value} for value in values]


@pytest.mark.parametrize(
    "attack",
    [
        _meta(storage_offset={"as_int": 1}),
        _meta(storage_offset={"as_int": -1}),
        _meta(sizes=_sizes(6, 3, 3, 4)),
        _meta(sizes=_sizes(6, 3, 3, -3)),
        _meta(sizes=_sizes(2**39, 3, 3, 3)),
        _meta(sizes=_sizes(2**62, 2**62, 3, 3)),
        _meta(strides=_sizes(2**39, 9, 3, 1)),
        _meta(strides=_sizes(-27, 9, 3, 1)),
        _meta(strides=_sizes(0, 9, 3, 1)),
        _meta(strides=_sizes(27, 9, 3)),
        _meta(dtype=8),
        _meta(dtype=99),
        _meta(dtype=True),
        _meta(layout=2),
        _meta(sizes=[{"as_expr": {"expr_str": "s0"}}] * 4),
        lambda d: d["config"]["stem.weight"].update(path_name="../../weight_0"),
        lambda d: d["config"]["stem.weight"].update(path_name="weight_99"),
        lambda d: d["config"]["stem.weight"].update(tensor_meta=None),
        lambda d: d["config"].pop("stem.weight"),
        lambda d: d.update(config=[]),
        lambda d: d["config"]["stem.weight"].update(is_param=False),
    ],
)
def test_tensors_that_reach_out_of_their_bytes_are_refused(
    sound: Path, tmp_path: Path, refused: Refused, attack: Callable[[Any], None]
) -> None:
    path = changed(sound, tmp_path / "a.pt2", WEIGHTS, attack)
    assert refused("model", path)["code"] == "model_invalid"


def test_an_empty_payload_of_giant_shape_allocates_nothing(
    sound: Path, tmp_path: Path, refused: Refused
) -> None:
    parts = members(sound)
    document = json.loads(parts[WEIGHTS])
    entry = document["config"]["stem.weight"]
    entry["tensor_meta"]["sizes"] = _sizes(6, 3, 3, 2**39)
    parts[WEIGHTS] = json.dumps(document).encode()
    parts[f"data/weights/{entry['path_name']}"] = b""
    path = archive(tmp_path / "a.pt2", parts)
    assert refused("model", path)["code"] == "model_invalid"


def test_a_tensor_of_one_number_spread_over_a_giant_shape_is_refused(
    sound: Path, tmp_path: Path, refused: Refused
) -> None:
    parts = members(sound)
    document = json.loads(parts[WEIGHTS])
    meta = document["config"]["norm.running_mean"]["tensor_meta"]
    meta |= {"sizes": _sizes(2**38), "strides": _sizes(0)}
    parts[WEIGHTS] = json.dumps(document).encode()
    assert refused("model", archive(tmp_path / "a.pt2", parts))["code"] == "model_too_large"


def test_a_result_of_giant_shape_is_priced_before_it_is_made(
    sound: Path, tmp_path: Path, refused: Refused
) -> None:
    def attack(document: Any) -> None:
        node = next(n for n in graph(document)["nodes"] if "adaptive_avg" in n["target"])
        node["inputs"][1]["arg"] = {"as_ints": [200_000, 200_000]}

    path = changed(sound, tmp_path / "a.pt2", DOCUMENT, attack)
    assert refused("model", path)["code"] == "model_too_large"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_parameters_that_are_no_numbers_are_named(
    sound: Path, tmp_path: Path, refused: Refused, number: float
) -> None:
    parts = members(sound)
    entry = json.loads(parts[WEIGHTS])["config"]["head.weight"]
    name = f"data/weights/{entry['path_name']}"
    parts[name] = struct.pack("<f", number) + parts[name][4:]
    said = refused("model", archive(tmp_path / "a.pt2", parts))
    assert (said["code"], said["where"]) == ("weights_non_finite", "head.weight")


@pytest.mark.parametrize(
    "document",
    [
        b'{"graph_module": 1, "graph_module": 2}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"x": NaN}',
        b'{"x": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe",
        b"",
        b'"' + b'\\"' * 100_000,
        b'{"a": "\\ud800"}',
    ],
)
def test_json_that_is_none_is_refused(
    sound: Path, tmp_path: Path, refused: Refused, document: bytes
) -> None:
    path = archive(tmp_path / "a.pt2", members(sound) | {DOCUMENT: document})
    assert refused("model", path)["code"] in ("model_unreadable", "model_invalid")


def test_json_of_many_values_is_refused_before_it_is_parsed(
    sound: Path, tmp_path: Path, refused: Refused
) -> None:
    document = b"[" + b"[],[]," * 2_000_000 + b"[]]"
    path = archive(tmp_path / "a.pt2", members(sound) | {DOCUMENT: document})
    assert refused("model", path)["code"] == "model_too_large"


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [[]], {"as_int": True}, {"a": 1, "b": 2}])
def test_a_value_of_another_type_anywhere_is_refused(
    sound: Path, tmp_path: Path, refused: Refused, value: Any
) -> None:
    places: list[Callable[[Any], None]] = [
        lambda d: d.update(graph_module=value),
        lambda d: d["graph_module"].update(signature=value),
        lambda d: d["graph_module"].update(module_call_graph=value),
        lambda d: graph(d).update(inputs=value),
        lambda d: graph(d)["nodes"][1].update(target=value),
        lambda d: graph(d)["nodes"][1]["inputs"][0].update(arg=value),
        lambda d: graph(d)["nodes"][1]["outputs"].append(value),
        lambda d: graph(d)["tensor_values"].update(x=value),
        lambda d: d.update(schema_version=value),
    ]
    for place in places:
        path = changed(sound, tmp_path / "a.pt2", DOCUMENT, place)
        assert refused("model", path)["code"] in ("model_invalid", "operator_unsupported")


def _again(path: Path, parts: dict[str, bytes]) -> Path:
    archive(path, parts)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as target:
        target.writestr(f"network/{DOCUMENT}", parts[DOCUMENT])
    return path


def _torn(path: Path, parts: dict[str, bytes]) -> Path:
    data = archive(path, parts).read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


def _directory(data: bytes | bytearray) -> int:
    """Where the first entry of the directory lies."""
    return int(struct.unpack_from("<L", data, data.rindex(b"PK\x05\x06") + 16)[0])


def _flagged(path: Path, parts: dict[str, bytes]) -> Path:
    data = bytearray(archive(path, parts).read_bytes())
    data[_directory(data) + 8] |= 1
    path.write_bytes(data)
    return path


def _overlapping(path: Path, parts: dict[str, bytes]) -> Path:
    """The second member's header lies inside the first member's bytes."""
    data = bytearray(archive(path, parts).read_bytes())
    first = _directory(data)
    second = data.index(b"PK\x01\x02", first + 4)
    struct.pack_into("<L", data, second + 42, 0)
    path.write_bytes(data)
    return path


def _wrong_sum(path: Path, parts: dict[str, bytes]) -> Path:
    name = next(name for name in parts if name.endswith("weight_0"))
    data = bytearray(archive(path, parts).read_bytes())
    data[data.index(parts[name])] ^= 1
    path.write_bytes(data)
    return path


CONTAINERS: dict[str, tuple[str, Callable[[Path, dict[str, bytes]], Path]]] = {
    "compressed": ("model_unreadable", lambda p, m: archive(p, m, compression=8)),
    "a bomb": (
        "model_unreadable",
        lambda p, m: archive(p, m | {"data/weights/weight_0": bytes(2**26)}, compression=8),
    ),
    "a name twice": ("model_unreadable", _again),
    "cut short": ("model_truncated", _torn),
    "encrypted": ("model_unreadable", _flagged),
    "overlapping": ("model_unreadable", _overlapping),
    "a wrong checksum": ("model_unreadable", _wrong_sum),
    "a way out": ("model_invalid", lambda p, m: archive(p, m | {"../../etc/passwd": b"x"})),
    "code of AOTInductor": (
        "unsupported_format",
        lambda p, m: archive(p, m | {"data/aotinductor/model/a.so": b"\x7fELF"}),
    ),
    "another program": ("model_invalid", lambda p, m: archive(p, m | {"models/b.json": b"{}"})),
    "no tables": (
        "model_invalid",
        lambda p, m: archive(p, {k: v for k, v in m.items() if k != WEIGHTS}),
    ),
    "a comment": ("model_truncated", lambda p, m: _commented(p, m)),
    "another version": (
        "unsupported_format",
        lambda p, m: archive(p, m | {"archive_version": b"1"}),
    ),
    "many members": (
        "model_too_large",
        lambda p, m: archive(p, m | {f"data/weights/weight_{n + 50}": b"" for n in range(41_000)}),
    ),
}


def _commented(path: Path, parts: dict[str, bytes]) -> Path:
    archive(path, parts)
    with zipfile.ZipFile(path, "a") as target:
        target.comment = b"PK\x05\x06" * 5
    return path


@pytest.mark.parametrize("name", CONTAINERS)
def test_archives_that_torch_does_not_write_are_refused(
    sound: Path, tmp_path: Path, marker: Path, name: str
) -> None:
    from pruning.errors import SecateurError
    from pruning.formats.limits import Limits
    from pruning.formats.pt2 import read

    expected, make = CONTAINERS[name]
    with pytest.raises(SecateurError) as caught:
        read(make(tmp_path / "a.pt2", members(sound)), Limits())
    assert caught.value.code == expected


def test_checkpoints_torchscript_and_old_exports_are_named(tmp_path: Path) -> None:
    from pruning.errors import SecateurError
    from pruning.formats.limits import Limits
    from pruning.formats.pt2 import read

    torch.save({"a": torch.zeros(2)}, saved := tmp_path / "saved.pt2")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script := tmp_path / "script.pt2")
    old = tmp_path / "old.pt2"
    with zipfile.ZipFile(old, "w") as target:
        target.writestr("version", "8.8")
        target.writestr("serialized_exported_program.json", "{}")
    for path, word in ((saved, "torch.save"), (script, "TorchScript"), (old, "before torch 2.9")):
        with pytest.raises(SecateurError) as caught:
            read(path, Limits())
        assert caught.value.code == "unsupported_format"
        assert word in caught.value.message
        assert "torch.export.save" in str(caught.value.hint)


def test_a_buffer_of_few_numbers_spread_over_many_is_refused(
    sound: Path, tmp_path: Path, refused: Refused
) -> None:
    parts = members(sound)
    document = json.loads(parts[WEIGHTS])
    meta = document["config"]["norm.running_mean"]["tensor_meta"]
    meta |= {"sizes": _sizes(45_000_000, 4), "strides": _sizes(0, 1)}
    parts[WEIGHTS] = json.dumps(document).encode()
    assert refused("model", archive(tmp_path / "a.pt2", parts))["code"] == "model_too_large"


def test_files_beside_the_program_are_bounded_together(
    sound: Path, tmp_path: Path, refused: Refused
) -> None:
    parts = members(sound) | {f"extra/{i}": bytes(1 << 20) for i in range(80)}
    assert refused("model", archive(tmp_path / "a.pt2", parts))["code"] == "model_too_large"
