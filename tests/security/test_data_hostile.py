"""Hostile datasets: each ends in a clean refusal, fast, with memory flat and nothing run."""

import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

MIB = 1 << 20
Make = Callable[[Path], Any]


def npy(array: np.ndarray, shape: tuple[int, ...] | None = None, descr: str | None = None) -> bytes:
    """An .npy file, whose header may claim another shape or type."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file,
        {"descr": descr or array.dtype.str, "fortran_order": False, "shape": shape or array.shape},
    )
    return file.getvalue() + array.tobytes()


def zeros(count: int) -> bytes:
    """A deflate stream of zeros, made without ever holding them: its blocks repeat."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(count % MIB)) + packer.flush()
    return block * (count // MIB) + rest


def zip_of(members: list[tuple[bytes, bytes, int, int]], extra: bytes = b"") -> bytes:
    """A zip of deflated members: name, packed bytes, claimed packed and unpacked sizes."""
    body, directory = b"", b""
    for name, packed, compressed, size in members:
        head = struct.pack(
            "<HHHHHIIIHH", 20, 0, 8, 0, 0x21, 0, compressed, size, len(name), len(extra)
        )
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + head
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name + extra
        body += b"PK\x03\x04" + head + name + extra + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end


def bomb_header(count: int) -> tuple[bytes, int]:
    """The packed bytes and the unpacked size of an array of `count` zero floats."""
    head = npy(np.zeros(0, np.float32), (count, 1))
    stored = b"\x00" + struct.pack("<HH", len(head), len(head) ^ 0xFFFF) + head
    return stored + zeros(4 * count), len(head) + 4 * count


def npz_bomb(path: Path) -> None:
    packed, size = bomb_header(1 << 28)
    path.write_bytes(zip_of([(b"x.npy", packed, len(packed), size)]))
    assert path.stat().st_size < 1.2 * MIB < 2**30 < size


def npz_bomb_that_claims_little(path: Path) -> None:
    packed, _ = bomb_header(1 << 28)
    path.write_bytes(zip_of([(b"x.npy", packed, len(packed), 4096)]))


def npz_bomb_of_many(path: Path) -> None:
    packed, size = bomb_header((1 << 22) - 64)
    assert size < 16 * MIB
    path.write_bytes(
        zip_of([(f"x{i}.npy".encode(), packed, len(packed), size) for i in range(200)])
    )


def npz_zip64(path: Path) -> None:
    packed, _ = bomb_header(1 << 20)
    extra = struct.pack("<HHQQ", 1, 16, 1 << 62, 1 << 62)
    path.write_bytes(zip_of([(b"x.npy", packed, 0xFFFFFFFF, 0xFFFFFFFF)], extra))


def zipped(*members: tuple[str, bytes]) -> Make:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members:
                archive.writestr(name, data)

    return write


class Trap:
    """An object that makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._marker}",)


def npz_pickled(path: Path) -> None:
    np.savez(path, x=np.array([Trap(path.parent / "marker")], dtype=object))
    path.with_suffix(".npz").rename(path)


def npz_pickle_in_header(path: Path) -> None:
    descr = "O'}, __import__('os').system('touch marker') or {'descr': '<f4"
    zipped(("x.npy", npy(np.zeros(4, np.float32), descr=descr)))(path)


def png(size: tuple[int, int] = (6, 5), mode: str = "RGB", form: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, form, **more)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def png_bomb(width: int, height: int) -> bytes:
    """One bit a pixel, all zeros."""
    rows = zlib.compress(bytes(1))[:2] + zeros((width // 8 + 1) * height)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def webp_canvas(width: int, height: int, flags: int = 0) -> bytes:
    """An extended WebP file around a small image that claims a large canvas."""
    small = png(form="WEBP", lossless=True)[12:]
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<IB3x", 10, flags) + sides + small
    return b"RIFF" + struct.pack("<I", len(body)) + body


def animated(form: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    file = io.BytesIO()
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    return file.getvalue()


def tar_of(*infos: tarfile.TarInfo) -> Make:
    def write(path: Path) -> None:
        with tarfile.open(path, "w") as archive:
            image = png()
            good = tarfile.TarInfo("cat/0.png")
            good.size = len(image)
            archive.addfile(good, io.BytesIO(image))
            for info in infos:
                info.size = len(image) if info.isreg() else 0
                archive.addfile(info, io.BytesIO(image) if info.isreg() else None)

    return write


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def lines(*texts: str) -> Make:
    return lambda path: path.write_text("\n".join(texts) + "\n")


def long_line(path: Path) -> None:
    """A line of 1 GB, all but its beginning a hole in the file."""
    with path.open("wb") as file:
        file.write(b'{"text": "' + b"a" * 100_000)
        file.truncate(1 << 30)


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> Make:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return lambda path: path.write_bytes(struct.pack("<Q", size) + text + data)


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def table(**columns: Any) -> Make:
    return lambda path: pq.write_table(pa.table(columns), path)


def with_table(columns: dict[str, Any], **options: Any) -> Make:
    return lambda path: pq.write_table(pa.table(columns), path, **options)


class Long(int):
    """An integer that Thrift writes as i64; others are i32, which readers tell apart."""


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def thrift(fields: dict[int, Any]) -> bytes:
    """A structure in Thrift's compact protocol: integers, bytes, structures and lists of them."""
    found, last = b"", 0
    for number, value in sorted(fields.items()):
        kind, data = _thrift_value(value)
        found, last = found + bytes([(number - last) << 4 | kind]) + data, number
    return found + b"\0"


def _thrift_value(value: Any) -> tuple[int, bytes]:
    if isinstance(value, int):
        kind = 6 if isinstance(value, Long) else 5
        return kind, varint(value * 2 if value >= 0 else -value * 2 - 1)
    if isinstance(value, bytes):
        return 8, varint(len(value)) + value
    if isinstance(value, dict):
        return 12, thrift(value)
    kinds = [_thrift_value(part) for part in value]
    kind = kinds[0][0] if kinds else 12
    return 9, bytes([0xF0 | kind]) + varint(len(kinds)) + b"".join(data for _, data in kinds)


def parquet(meta: dict[int, Any] | bytes, body: bytes = b"", length: int | None = None) -> Make:
    footer = meta if isinstance(meta, bytes) else thrift(meta)
    size = struct.pack("<I", len(footer) if length is None else length)
    return lambda path: path.write_bytes(b"PAR1" + body + footer + size + b"PAR1")


def one_column(
    rows: int, values: int, page: dict[int, Any], data: bytes = b"", **more: Any
) -> Make:
    """A table of one column of doubles, with one page as told; `more` replaces the column's own."""
    body = thrift(page) + data
    size = Long(len(body))
    column = {1: 5, 2: [0], 3: [b"x"], 4: 0, 5: Long(values), 6: size, 7: size, 9: Long(4)}
    column |= {int(number[1:]): value for number, value in more.items()}
    schema = [{4: b"schema", 5: 1}, {1: 5, 3: 0, 4: b"x"}]
    groups = [{1: [{2: Long(4), 3: column}], 2: size, 3: Long(rows)}]
    return parquet({1: 1, 2: schema, 3: Long(rows), 4: groups}, body)


def texts_column(rows: int, values: int, *pages: dict[int, Any], repeated: int = 0) -> Make:
    """A table of one column of texts, with pages as told, each of 16 bytes."""
    body = b"".join(thrift(page) + bytes(16) for page in pages)
    size = Long(len(body))
    column = {1: 6, 2: [0], 3: [b"text"], 4: 0, 5: Long(values), 6: size, 7: size, 9: Long(4)}
    schema = [{4: b"schema", 5: 1}, {1: 6, 3: repeated, 4: b"text", 6: 0}]
    groups = [{1: [{2: Long(4), 3: column}], 2: size, 3: Long(rows)}]
    return parquet({1: 1, 2: schema, 3: Long(rows), 4: groups}, body)


def page_2(values: int, **more: Any) -> dict[int, Any]:
    own = {1: values, 2: 0, 3: values, 4: 0, 5: 0, 6: 0}
    return {1: 3, 2: 16, 3: 16, 8: own} | {int(n[1:]): value for n, value in more.items()}


def differences(path: Path) -> None:
    """A text of 100 KB 200 times, each as what differs from the one before: nothing."""
    table = pa.table({"text": ["a" * 100_000] * 200})
    pq.write_table(
        table, path, use_dictionary=False, compression="none",
        column_encoding={"text": "DELTA_BYTE_ARRAY"},
    )  # fmt: skip


def page(values: int, unpacked: int, packed: int) -> dict[int, Any]:
    return {1: 0, 2: unpacked, 3: packed, 5: {1: values, 2: 0, 3: 3, 4: 3}}


def nested(depth: int) -> list[dict[int, Any]]:
    return [*({3: 0, 4: b"g", 5: 1} for _ in range(depth)), {1: 5, 3: 0, 4: b"x"}]


def repeated_text(path: Path) -> None:
    """One text of 900 KB in 50,000 rows: 45 GB, of which the file holds one."""
    column = pa.DictionaryArray.from_arrays(np.zeros(50_000, np.int32), ["a" * 900_000])
    pq.write_table(pa.table({"text": column}), path, store_schema=False)


CASES: dict[str, tuple[Make, str]] = {
    "npz: 1 MB to 1 GB": (npz_bomb, "data_too_large"),
    "npz: 1 GB that claims 4 KB": (npz_bomb_that_claims_little, "data_unreadable"),
    "npz: 200 members just under the bound": (npz_bomb_of_many, "data_too_large"),
    "npz: zip64 sizes": (npz_zip64, "data_unreadable"),
    "npz: a shape of 2^60": (
        zipped(("x.npy", npy(np.zeros(2, np.float32), (1 << 30, 1 << 30)))), "data_too_large"),
    "npz: objects": (npz_pickled, "data_pickled"),
    "npz: code in the header": (npz_pickle_in_header, "data_unreadable"),
    "npz: the same name twice": (
        zipped(("x.npy", npy(np.ones(3))), ("x.npy", npy(np.ones(3)))), "data_names"),
    "npz: a name that leaves": (zipped(("../../x.npy", npy(np.ones(3)))), "data_names"),
    "npz: infinity": (zipped(("x.npy", npy(np.full((3, 2), np.inf)))), "data_non_finite"),
    "images: 50000 x 50000": (
        zipped(("a/0.png", png_bomb(50_000, 50_000)[: 4 * MIB])), "data_too_large"),
    "images: many PNG bombs under the bound": (
        zipped(*((f"{i}.png", png_bomb(12_000, 1_000)) for i in range(99))), "data_too_large"),
    "images: WebP with a canvas of 16384 x 16384": (
        zipped(("a/0.webp", webp_canvas(16_384, 16_384))), "data_too_large"),
    "images: animated WebP": (zipped(("a/0.webp", animated("WEBP"))), "data_unreadable"),
    "images: animated PNG": (zipped(("a/0.png", animated("PNG"))), "data_unreadable"),
    "images: cut short, as large as may be": (
        zipped(("a/0.png", png((4_000, 3_120), exif=b"Exif\0\0II*\0")[:-40])), "data_unreadable"),
    "images: truncated JPEG": (
        zipped(("a/0.jpg", png((640, 480), form="JPEG")[:-900])), "data_unreadable"),
    "images: truncated PNG": (zipped(("a/0.png", png((99, 99))[:-40])), "data_unreadable"),
    "images: PostScript under another name": (
        zipped(("a/0.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")),
        "data_unreadable"),
    "images: a text beside them": (
        zipped(("a/0.png", png()), ("a/readme.txt", b"hello")), "data_unreadable"),
    "images: a name that leaves": (
        zipped(("a/0.png", png()), ("../../b.png", png())), "data_unreadable"),
    "images: an absolute name": (zipped(("/etc/b.png", png())), "data_unreadable"),
    "images: folders of folders": (zipped(("a/b/0.png", png()), ("a/1.png", png())),
                                   "data_unreadable"),
    "images: the same name twice": (
        zipped(("a/0.png", png()), ("a/0.png", png())), "data_unreadable"),
    "images: preprocessing of NaN": (
        zipped(("0.png", png()), ("preprocessing.json", b'{"scale": NaN}')), "data_unreadable"),
    "images: preprocessing to 10^9 pixels": (
        zipped(("0.png", png()), ("preprocessing.json", b'{"size": [99999, 99999]}')),
        "data_unreadable"),
    "tar: a symbolic link": (
        tar_of(tar_entry("cat/1.png", tarfile.SYMTYPE, "/etc/passwd")), "data_unreadable"),
    "tar: a hard link": (
        tar_of(tar_entry("cat/1.png", tarfile.LNKTYPE, "../../x")), "data_unreadable"),
    "tar: a device": (tar_of(tar_entry("cat/1.png", tarfile.CHRTYPE)), "data_unreadable"),
    "tar: a name that leaves": (tar_of(tar_entry("../../cat.png")), "data_unreadable"),
    "tar: the same name twice": (tar_of(tar_entry("cat/0.png")), "data_unreadable"),
    "jsonl: a line of 1 GB": (long_line, "data_too_large"),
    "jsonl: nested 200,000 deep": (
        lines('{"x": 1}', '{"x": ' + "[" * 200_000 + "]" * 200_000 + "}"), "data_unreadable"),
    "jsonl: NaN as label": (lines('{"text": "a", "label": NaN}'), "data_non_finite"),
    "jsonl: 1e999": (lines('{"x": [1, 1e999]}'), "data_non_finite"),
    "jsonl: a key twice": (lines('{"text": "a", "text": "b"}'), "data_unreadable"),
    "jsonl: numbers and one long text": (
        lines('{"x": ["' + "a" * 500_000 + '"' + ", 1" * 100_000 + "]}"), "data_dtype"),
    "jsonl: a number of a million digits": (lines('{"x": ' + "9" * 1_000_000 + "}"),
                                            "data_unreadable"),
    "jsonl: half a surrogate pair": (lines('{"text": "\\ud800"}'), "data_unreadable"),
    "jsonl: not UTF-8": (
        lambda path: path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n'), "data_unreadable"),
    "jsonl: a negative label": (lines('{"text": "a", "label": -7}'), "target_invalid"),
    "jsonl: names beyond the bound": (
        lines(*(f'{{"text": "a", "label": "c{i}"}}' for i in range(10_001))), "data_too_large"),
    "safetensors: a header of 2^63": (safetensors({"x": 1}, length=1 << 63), "unsupported_format"),
    "safetensors: a header of 8 MB": (safetensors(b"{" + b" " * (8 * MIB)), "data_too_large"),
    "safetensors: a shape of 2^62": (
        safetensors({"x": entry([1 << 31, 1 << 31], 0, 8)}, bytes(8)), "data_unreadable"),
    "safetensors: overlapping arrays": (
        safetensors({"x": entry([2], 0, 8), "y": entry([2], 4, 12)}, bytes(12)),
        "data_unreadable"),
    "safetensors: beyond the end": (safetensors({"x": entry([4], 0, 16)}, bytes(8)),
                                    "data_unreadable"),
    "safetensors: nested deep": (
        safetensors(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "data_unreadable"),
    "safetensors: NaN": (
        safetensors({"x": entry([2], 0, 8)}, struct.pack("<ff", 1, float("nan"))),
        "data_non_finite"),
    "parquet: a footer longer than the file": (parquet(b"\0" * 20, length=900_000),
                                               "data_unreadable"),
    "parquet: a footer of 8 MB": (parquet(b"\0" * (8 * MIB)), "data_too_large"),
    "parquet: a footer of noise": (parquet(bytes(range(256)) * 9), "data_unreadable"),
    "parquet: lists of 2^60 in the footer": (
        parquet(b"\x19\xfc" + varint(1 << 60)), "data_unreadable"),
    "parquet: 2^60 rows of nothing": (
        parquet({1: 1, 2: [{4: b"schema", 5: 1}, {1: 5, 3: 0, 4: b"x"}], 3: Long(1 << 60), 4: []}),
        "data_unreadable"),
    "parquet: 2^60 rows told": (
        one_column(1 << 60, 1 << 60, page(1 << 60, 80, 80), bytes(80)), "data_too_large"),
    "parquet: a million values in a page of ten": (
        one_column(1_000_000, 1_000_000, page(1_000_000, 80, 80), bytes(80)), "data_unreadable"),
    "parquet: a page that claims 2 GB": (
        one_column(10, 10, page(10, (1 << 31) - 1, 80), bytes(80)), "data_too_large"),
    "parquet: 400 million texts in 200 bytes": (
        texts_column(1, 400_000_000, page(400_000_000, 16, 16)), "data_unreadable"),
    "parquet: ten million texts in 200 bytes": (
        texts_column(10_000_000, 10_000_000, page(10_000_000, 16, 16)), "data_too_large"),
    "parquet: 400 million texts that repeat": (
        texts_column(1, 400_000_000, page(400_000_000, 16, 16), repeated=2), "data_too_large"),
    "parquet: fewer values than rows": (texts_column(9, 3, page(3, 16, 16)), "data_unreadable"),
    "parquet: a page with two headers": (
        texts_column(4, 4, page_2(400_000_000, _5={1: 4, 2: 0, 3: 3, 4: 3})), "data_unreadable"),
    "parquet: a page without its header": (
        texts_column(4, 4, {1: 3, 2: 16, 3: 16, 5: {1: 4, 2: 0, 3: 3, 4: 3}}), "data_unreadable"),
    "parquet: a dictionary of 2^31": (
        texts_column(4, 4, {1: 2, 2: 16, 3: 16, 7: {1: (1 << 31) - 1, 2: 0}}, page(4, 16, 16)),
        "data_unreadable"),
    "parquet: texts as differences": (differences, "data_unreadable"),
    "parquet: a type that there is not": (
        parquet({1: 1, 2: [{4: b"schema", 5: 1}, {1: 9, 3: 0, 4: b"x"}], 3: Long(0), 4: []}),
        "data_unreadable"),
    "parquet: a page beyond its chunk": (
        one_column(10, 10, page(10, 80, 1 << 30), bytes(80)), "data_unreadable"),
    # pyarrow's own objects for the metadata end the process on this one.
    "parquet: statistics of another size": (
        one_column(10, 10, page(10, 80, 80), bytes(80), _16={3: [Long(1), Long(1)]}),
        "data_unreadable"),
    "parquet: a column that begins nowhere": (
        one_column(10, 10, page(10, 80, 80), bytes(80), _9=Long(0)), "data_unreadable"),
    "parquet: a text for a number": (
        one_column(10, 10, page(10, 80, 80), bytes(80), _5=b"10"), "data_unreadable"),
    "parquet: groups nested 3,000 deep": (
        parquet({1: 1, 2: nested(3_000), 3: Long(0), 4: []}), "data_dtype"),
    "parquet: a schema of 50,000": (
        parquet({1: 1, 2: [{1: 5, 3: 0, 4: b"x"}] * 50_000, 3: Long(0), 4: []}), "data_unreadable"),
    "parquet: structures": (table(x=[{"a": 1}, {"a": 2}]), "data_dtype"),
    "parquet: maps": (
        table(x=pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))), "data_dtype"),
    "parquet: categories": (table(x=pa.array(["a"]).dictionary_encode()), "data_dtype"),
    "parquet: empty cells": (table(x=[1.0, None]), "data_unreadable"),
    "parquet: lists of different lengths": (table(x=[[1.0], [1.0, 2.0]]), "data_shape"),
    "parquet: NaN": (table(x=[1.0, float("nan")]), "data_non_finite"),
    "parquet: NaN as label": (table(text=["a"], label=[float("nan")]), "data_non_finite"),
    "parquet: 32 MB of zeros": (
        with_table({"x": np.zeros(4 * MIB)}, use_dictionary=False, compression="zstd"),
        "data_too_large"),
    "parquet: 32 MB of one value": (with_table({"x": np.zeros(4 * MIB)}), "data_too_large"),
    "parquet: one text in every row": (repeated_text, "data_too_large"),
    "parquet: cut short": (
        lambda path: (table(x=[1.0] * 999)(path), path.write_bytes(path.read_bytes()[:-9])),
        "data_unreadable"),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x04\x95\x05\0\0\0\0\0\0\0\x8c\x01x."),
                 "unsupported_format"),
    "nothing": (lambda path: path.write_bytes(b""), "unsupported_format"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", CASES)
def test_a_hostile_dataset_ends_in_a_clean_refusal(name, refused, tmp_path):
    make, code = CASES[name]
    path = tmp_path / "upload"
    make(path)
    assert refused("data", path, tmp_path / "marker")["code"] == code


def overlapping_exif() -> bytes:
    """A JPEG whose EXIF has thousands of tags that share their bytes: 2.7 GB if all were copied."""
    count = 65_000 // 12 - 10
    entries = b"".join(struct.pack("<HHII", 0x0201 + i, 1, 500_000, 8) for i in range(count))
    tiff = b"II*\0" + struct.pack("<IH", 8, count) + entries
    segment = lambda data: b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data  # noqa: E731
    more = segment(b"Exif\0\0" + bytes(65_000)) * 8
    image = png(form="JPEG")
    return image[:2] + segment(b"Exif\0\0" + tiff) + more + image[2:]


def test_metadata_of_images_is_never_parsed(intake, tmp_path):
    path = tmp_path / "upload"
    zipped(("a/0.jpg", overlapping_exif()))(path)
    said = intake("data", path)
    assert (said["code"], said["crash"]) == (None, None)
    assert said["grown"] < 16 * MIB
    assert said["seconds"] < 5


@pytest.mark.parametrize("first", [[], ["a.png"], ["config.json"]])
@pytest.mark.parametrize("kind", ["data", "model"])
def test_headers_of_an_archive_are_not_all_read_to_tell_what_it_is(kind, first, refused, tmp_path):
    path = tmp_path / "upload"
    more = tarfile.TarInfo("d/")
    more.type = tarfile.DIRTYPE
    with path.open("wb") as file:
        for name in first:
            file.write(tarfile.TarInfo(name).tobuf())
        for _ in range(90):
            file.write(more.tobuf() * 2_000)
        file.write(bytes(1024))
    said = refused(kind, path)
    assert said["code"].endswith(("_unreadable", "_format", "_too_large"))


def test_an_image_that_is_coded_over_and_over_is_refused(refused, tmp_path):
    image = png((3_500, 3_500), "L", "JPEG", progressive=True)
    scan = image[image.rfind(b"\xff\xda") : -2]
    path = tmp_path / "upload"
    zipped(("a/0.jpg", image[:-2] + scan * 2_000 + image[-2:]), ("b/0.jpg", png()))(path)
    assert refused("data", path)["code"] == "data_unreadable"


def test_a_progressive_image_is_read(intake, tmp_path):
    path = tmp_path / "upload"
    image = png((64, 64), form="JPEG", progressive=True)
    zipped(("a/0.jpg", image), ("b/0.jpg", image))(path)
    assert intake("data", path)["code"] is None


def test_a_batch_of_long_texts_behind_short_ones_takes_no_more_than_others(intake, tmp_path):
    path = tmp_path / "upload"
    draw = np.random.default_rng(0)
    long = [bytes(draw.integers(97, 123, 900_000, np.uint8)).decode() for _ in range(99)]
    table = pa.table({"text": ["a"] * 40_000 + long})
    pq.write_table(table, path, use_dictionary=False, compression="none", write_batch_size=8)
    said = intake("data", path)
    assert (said["code"], said["crash"]) == (None, None)
    assert said["grown"] < 160 * MIB
