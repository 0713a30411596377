"""Weights that an ONNX model keeps in files beside it: where they lie, read and written back.

A tensor names a file (`location`, relative to the model's folder), and where in it its bytes
begin and how many they are. Locations stay inside of the upload, every region is checked against
its file's size before a byte is read, and two tensors lie in the same bytes entirely or not at all.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from onnx import GraphProto, ModelProto, TensorProto, helper

from pruning.errors import SecateurError
from pruning.formats.bundle import Bundle, Kind, open_bundle, pack
from pruning.formats.limits import Limits
from pruning.formats.onnx.operation import PLAIN
from pruning.formats.onnx.text import shown

_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})
_BITS: dict[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4}
_LONGEST = 1 << 62
_LISTED = 5

Key = tuple[Any, ...]
"""The way to a tensor from the model's graph: of initialisers by name, of attributes by number."""


@dataclass(frozen=True)
class Region:
    """Bytes of a file of the upload.

    Args:
        file: The file's name in the upload.
        start: Of the first byte.
        size: Bytes.
        entries: Keys and values as the model has them.
    """

    file: str
    start: int
    size: int
    entries: tuple[tuple[str, str], ...] = field(compare=False)


@dataclass(frozen=True)
class ModelFiles:
    """A model of several files.

    Args:
        source: The folder or archive.
        kind: How the files came.
        prefix: Their common top folder, with its slash.
        model: The name of the ONNX file.
        regions: Where the tensors kept in other files lie.
        same: A tensor that lies in another's bytes to that one; graph initialisers alone.
        limits: What the upload was read with.
    """

    source: Path
    kind: Kind
    prefix: str
    model: str
    regions: Mapping[Key, Region]
    same: Mapping[str, str]
    limits: Limits

    def write(self, proto: ModelProto, folder: Path, stem: str) -> list[Path]:
        """The upload in its own container, with the numbers of `proto`.

        Args:
            proto: The model with all numbers in it, its tensors where `regions` has them.
            folder: Where to.
            stem: Of an archive's name.
        """
        bare = ModelProto()
        bare.CopyFrom(proto)
        tensors = dict(located(bare.graph))
        with tempfile.TemporaryDirectory() as name, open_bundle(self.source, self.limits) as bundle:
            scratch = Path(name)
            members = {n: bundle.path(n, scratch) for n in bundle.names}
            for number, file in enumerate(sorted({r.file for r in self.regions.values()})):
                target = scratch / f"data-{number}"
                shutil.copyfile(members[file], target)
                with target.open("r+b") as sink:
                    for key, region in self.regions.items():
                        if region.file == file and not self._follows(key):
                            sink.seek(region.start)
                            sink.write(tensors[key].raw_data)
                members[file] = target
            for key, region in self.regions.items():
                _put_out(tensors[key], region, members[region.file])
            model = scratch / "model"
            model.write_bytes(bare.SerializeToString(deterministic=True))
            members[self.model] = model
            single = self.kind != "folder"
            target = folder / f"{stem}.{self.kind}" if single else folder
            return pack(self.kind, target, members, self.prefix)

    def _follows(self, key: Key) -> bool:
        return len(key) == 2 and key[0] == "" and key[1] in self.same

    def unpacked(self, folder: Path) -> Path:
        """The model's file with the others beside it: the upload's own, or a copy in `folder`."""
        with open_bundle(self.source, self.limits) as bundle:
            if bundle.kind == "folder":
                return bundle.path(self.model, folder)
            needed = {self.model, *(region.file for region in self.regions.values())}
            for name in sorted(needed):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                bundle.path(name, folder).replace(target)
        return folder / self.model

    def skeleton(self) -> object:
        """Container, names, regions, and digests of the files that are given back as they came."""
        written = {self.model, *(region.file for region in self.regions.values())}
        with open_bundle(self.source, self.limits) as bundle:
            kept = {n: _digest(bundle, n) for n in bundle.names if n not in written}
            sizes = {region.file: bundle.sizes[region.file] for region in self.regions.values()}
        return (self.kind, self.prefix, self.model, kept, sizes, dict(self.regions))


def located(graph: GraphProto, path: Key = ()) -> Iterator[tuple[Key, TensorProto]]:
    """Every tensor of a graph and of the graphs in it, with the way to it."""
    for tensor in graph.initializer:
        yield (*path, "", tensor.name), tensor
    for number, node in enumerate(graph.node):
        for place, attribute in enumerate(node.attribute):
            here = (*path, number, place)
            if attribute.type in PLAIN:
                continue  # ONNX's checker refuses values of another type than the declared one
            if attribute.HasField("t"):
                yield here, attribute.t
            for i, tensor in enumerate(attribute.tensors):
                yield (*here, i), tensor
            inner = [attribute.g] if attribute.HasField("g") else []
            for i, body in enumerate([*inner, *attribute.graphs]):
                yield from located(body, (*here, f"graph {i}"))


def is_external(tensor: TensorProto) -> bool:
    """Whether a tensor's numbers are in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL or tensor.external_data)


def model_name(bundle: Bundle) -> str:
    """The ONNX file among the files of an upload.

    Raises:
        SecateurError: `model_invalid` where there is none, or more than one.
    """
    found = [name for name in bundle.names if name.lower().endswith(".onnx")]
    if len(found) == 1:
        return found[0]
    said = f"holds {len(found)} ONNX files: {', '.join(map(shown, found[:_LISTED]))}"
    raise SecateurError(
        "model_invalid",
        f"The upload {said if found else 'holds no file that ends in .onnx'}.",
        hint="Upload one .onnx file with the files that hold its weights.",
    )


def regions(
    proto: ModelProto, bundle: Bundle | None, model: str
) -> tuple[dict[Key, Region], dict[str, str]]:
    """Where the tensors in other files lie, and which of them lie in another's bytes.

    Args:
        proto: The model, within its limits.
        bundle: The upload's files; None for a model that came alone.
        model: The name of its file in the upload.

    Raises:
        SecateurError: `external_data` for a file that is missing, a location outside of the
            upload or in the model's own file, and bytes that are not there or shared in part.
    """
    outside = [(key, tensor) for key, tensor in located(proto.graph) if is_external(tensor)]
    places = {key: _place(tensor) for key, tensor in outside}
    folder = PurePosixPath(model).parent
    names = {key: str(folder / place.file) for key, place in places.items()}
    have = {} if bundle is None else bundle.sizes
    own = next((tensor for key, tensor in outside if names[key] == model), None)
    if own is not None:
        raise _refused(own, "lies in the model's own file")
    missing = sorted({places[key].file for key, name in names.items() if name not in have})
    if missing:
        raise _missing(outside[0][1], missing, PurePosixPath(model).name)
    found: dict[Key, Region] = {}
    for key, tensor in outside:
        place = places[key]
        if place.start + place.size > have[names[key]]:
            raise _refused(
                tensor,
                f"lies in bytes {place.start} to {place.start + place.size} of "
                f"{shown(place.file)}, which has {have[names[key]]}",
                _WHOLE + _SAVE,
            )
        found[key] = Region(names[key], place.start, place.size, place.entries)
    return found, _shared(outside, found)


def fill(proto: ModelProto, found: Mapping[Key, Region], bundle: Bundle) -> None:
    """Takes the numbers from the other files into the model."""
    tensors = dict(located(proto.graph))
    for file in sorted({region.file for region in found.values()}):
        with bundle.open(file) as source:
            at = 0
            inside = [item for item in found.items() if item[1].file == file]
            for key, region in sorted(inside, key=lambda item: item[1].start):
                if region.start < at:  # the same bytes as the tensor before
                    source.seek(region.start)
                    at = region.start
                while at < region.start:  # members of an archive are read from front to back
                    at += len(source.read(min(1 << 20, region.start - at)))
                tensor = tensors[key]
                tensor.raw_data = source.read(region.size)
                at += region.size
                if len(tensor.raw_data) != region.size:
                    raise _refused(tensor, f"ends early in {shown(region.file)}")
    for tensor in tensors.values():
        if is_external(tensor):
            tensor.ClearField("data_location")
            del tensor.external_data[:]


def checked_copy(proto: ModelProto) -> ModelProto:
    """The model for ONNX's checker, which would open the other files: without their tensors."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for _, tensor in located(copy.graph):
        if is_external(tensor):
            tensor.ClearField("data_location")
            del tensor.external_data[:]
            tensor.dims[:] = [0]
    return copy


def _place(tensor: TensorProto) -> Region:
    """What a tensor says of its place; `file` is the location as it stands."""
    entries = [(entry.key, entry.value) for entry in tensor.external_data]
    said = dict(entries)
    if len(said) != len(entries) or not said.keys() <= _KEYS or "basepath" in said:
        raise _refused(tensor, "has entries other than location, offset, length and checksum")
    kept = [name for name in ("raw_data",) if tensor.HasField(name)]
    if kept or tensor.float_data or tensor.int32_data or tensor.int64_data or tensor.double_data:
        raise _refused(tensor, "holds numbers in the model's file too")
    location = said.get("location", "").removeprefix("./")
    parts = location.split("/")
    if (
        not location.isprintable()
        or any(part in ("", ".", "..") for part in parts)
        or any(c in location for c in "\\:")
    ):
        raise _refused(tensor, f"is in {shown(location)!r}, which leads out of the upload")
    size, start = _bytes(tensor), _number(tensor, said.get("offset", "0"))
    if _number(tensor, said.get("length", str(size))) != size:
        raise _refused(tensor, f"has {said['length']} bytes there, where its shape takes {size}")
    return Region(location, start, size, tuple(entries))


def _bytes(tensor: TensorProto) -> int:
    count = prod(tensor.dims)
    if tensor.data_type in _BITS:
        return -(-count * _BITS[tensor.data_type] // 8)
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError):
        raise _refused(tensor, "is of an unknown type") from None
    if tensor.data_type == TensorProto.STRING:
        raise _refused(tensor, "holds texts, which can't be in another file")
    return count * int(dtype.itemsize)


def _number(tensor: TensorProto, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < _LONGEST):
        raise _refused(tensor, f"has {shown(text)!r} for an offset or a length")
    return int(text)


def _shared(outside: list[tuple[Key, TensorProto]], found: Mapping[Key, Region]) -> dict[str, str]:
    """Tensors that lie where an earlier one does.

    Raises:
        SecateurError: `external_data` for bytes that are shared in part, or by tensors that are
            not both the graph's own, of one type and shape.
    """
    same: dict[str, str] = {}
    ordered = sorted(
        ((found[key], i, key, tensor) for i, (key, tensor) in enumerate(outside)
         if found[key].size),
        key=lambda item: (item[0].file, item[0].start, item[0].size, item[1]),
    )  # fmt: skip
    last: tuple[Region, int, Key, TensorProto] | None = None
    for item in ordered:
        region, _, key, tensor = item
        if last is not None and last[0].file == region.file and (
            region.start < last[0].start + last[0].size
        ):  # fmt: skip
            own = len(key) == len(last[2]) == 2 and key[0] == last[2][0] == ""
            alike = tensor.data_type == last[3].data_type and tensor.dims == last[3].dims
            if region != last[0] or not own or not alike:
                raise _refused(tensor, f"shares bytes of {shown(region.file)} with another tensor")
            same[str(key[1])] = str(last[2][1])
            continue
        last = item
    return same


def _put_out(tensor: TensorProto, region: Region, file: Path) -> None:
    """Leaves of a tensor what the upload had of it."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in region.entries:
        if key == "checksum":
            with file.open("rb") as data:
                value = hashlib.file_digest(data, "sha1").hexdigest()
        tensor.external_data.add(key=key, value=value)


def _digest(bundle: Bundle, name: str) -> str:
    digest = hashlib.sha256()
    with bundle.open(name) as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


_SAVE = "Save the model again with onnx.save_model(model, path, save_as_external_data=True)."
_WHOLE = "Send the file that was written together with this model, whole. "


def _refused(tensor: TensorProto, what: str, hint: str = _SAVE) -> SecateurError:
    return SecateurError(
        "external_data",
        f"The tensor {shown(tensor.name)!r} {what}.",
        where=shown(tensor.name),
        hint=hint,
    )


def _missing(tensor: TensorProto, files: list[str], model: str) -> SecateurError:
    some = [shown(name) for name in files[:_LISTED]]
    more = f" and {len(files) - len(some)} more" if len(files) > len(some) else ""
    model = shown(model) if model.lower().endswith(".onnx") else "model.onnx"
    it = "it" if len(files) == 1 else "them"
    parts = " ".join(f"-F file=@{name}" for name in (model, *some))
    if any("/" in name for name in files):
        parts = "as one .tar or .zip that keeps the folders"
    return SecateurError(
        "external_data",
        f"The model keeps weights in {', '.join(some)}{more}, which did not come with it.",
        where=shown(tensor.name),
        hint=f"Put {it} where the export wrote {it}, beside {model}: `secateur prune` and the "
        f"Python client then send {it} along. Over HTTP send all files together, {parts}. If "
        "there is no such file any more, export the model again.",
        files=files[:100],
    )
