"""Two models that packages ship, and real content in the form in which they take it."""

import gzip
import importlib.util
import io
import json
import string
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MAGIKA = "models/standard_v3_3/model.onnx"
CLASSIFIER = "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
DETECTOR = "models/ch_PP-OCRv4_det_infer.onnx"
SIDE, PADDING = 1024, 256


def packaged(package: str, path: str) -> Path | None:
    """A file of an installed package, found without importing it; None where there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / path
    return found if found.is_file() else None


def contents(count: int) -> list[bytes]:
    """`count` files of many kinds: this interpreter's own, and some made of them."""
    sources = sorted(Path(json.__file__).parent.parent.glob("*.py"))
    texts = [path.read_bytes() for path in sources[: count // 3]]
    made: list[bytes] = []
    for number, text in enumerate(texts):
        archive, image = io.BytesIO(), io.BytesIO()
        with zipfile.ZipFile(archive, "w") as members:
            members.writestr(zipfile.ZipInfo(f"{number}.txt"), text)  # without the time of day
        page = np.frombuffer(text[:3072].ljust(3072), np.uint8).reshape(32, 32, 3)
        Image.fromarray(page).save(image, ("PNG", "JPEG", "BMP", "GIF")[number % 4])
        words = text.decode("utf-8", "replace").split()
        made += [
            (archive.getvalue(), gzip.compress(text, mtime=0), image.getvalue())[number % 3],
            (
                json.dumps({str(i): w for i, w in enumerate(words)}).encode(),
                "\n".join(f"{i},{w}" for i, w in enumerate(words)).encode(),
                "".join(f"<p>{w}</p>\n" for w in words).encode(),
            )[number % 3],
        ]
    return [*texts, *made, Path(sys.executable).read_bytes()][:count]


def file_tokens(files: list[bytes]) -> np.ndarray:
    """Files as magika's tokens, int32 [files, 2048]: stripped bytes of both ends, 256 beside."""
    rows = []
    for data in files:
        first = list(data[:4096].lstrip()[:SIDE])
        last = list(data[-4096:].rstrip()[-SIDE:])
        pads = [PADDING] * (SIDE - len(first)), [PADDING] * (SIDE - len(last))
        rows.append([*first, *pads[0], *pads[1], *last])
    return np.array(rows, np.int32)


def text_lines(count: int, seed: int = 0) -> np.ndarray:
    """Lines of text as the direction classifier takes them, float32 [lines, 3, 48, 192].

    Every other line stands on its head. Pixels run from -1 to 1, what is left of the width is 0.
    """
    random = np.random.default_rng(seed)
    letters = np.array(list(string.ascii_letters + string.digits + "  .,-"))
    lines = np.zeros((count, 3, 48, 192), np.float32)
    for number in range(count):
        text = "".join(random.choice(letters, random.integers(4, 16)))
        font = ImageFont.load_default(int(random.integers(20, 34)))
        paper, ink = random.integers(170, 256, 3), random.integers(0, 90, 3)
        wide = min(192, max(32, int(font.getlength(text)) + 12))
        page = Image.new("RGB", (wide, 48), tuple(map(int, paper)))
        at = int(random.integers(0, 8)), int(random.integers(2, 12))
        ImageDraw.Draw(page).text(at, text, tuple(map(int, ink)), font)
        if number % 2:
            page = page.rotate(180)
        pixels = np.asarray(page, np.float32).transpose(2, 0, 1)[::-1]
        lines[number, :, :, :wide] = (pixels / 255 - 0.5) / 0.5
    return lines
