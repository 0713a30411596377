"""What importing an ONNX file costs, beside reading and checking it with the onnx package.

Files: networks exported by torch at about 1, 20 and 100 MB, and two models that packages ship
(magika's content classifier, RapidOCR's text-direction classifier), where these are installed.
Both ways are timed in turn in one process, in CPU time of one thread; the first round warms up and
is not counted. The figure: the importer takes at most 3 times as long as onnx.load and
onnx.checker.check_model.
"""

import importlib.util
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx.checker
import torch
from torch import nn

from benchmarks.common import save, table
from pruning.formats.limits import Limits
from pruning.formats.onnx import read

ROUNDS = 9
LIMIT = 3.0
SHIPPED = {
    "magika": ("magika", "models/standard_v3_3/model.onnx"),
    "rapidocr cls": ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
}


def _convolutional(channels: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1)]
    for _ in range(8):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def _encoder(width: int, depth: int) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)]
        layers.append(nn.LayerNorm(width))
    return nn.Sequential(*layers, nn.Linear(width, 10))


def _networks() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    image = torch.zeros(1, 3, 64, 64)
    return {
        "convolutions, 1 MB": (_convolutional(56), image),
        "convolutions, 20 MB": (_convolutional(260), image),
        "convolutions, 100 MB": (_convolutional(580), image),
        "encoder, 1 MB": (_encoder(100, 3), torch.zeros(1, 16, 100)),
        "encoder, 20 MB": (_encoder(320, 6), torch.zeros(1, 16, 320)),
        "encoder, 100 MB": (_encoder(600, 9), torch.zeros(1, 16, 600)),
    }


def _export(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (example,), path, dynamo=False, opset_version=17, input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )  # fmt: skip


def _files(folder: Path) -> dict[str, Path]:
    torch.manual_seed(0)
    found = {}
    for number, (name, (module, example)) in enumerate(_networks().items()):
        found[name] = folder / f"{number}.onnx"
        _export(module, example, found[name])
    for name, (package, inside) in SHIPPED.items():
        place = importlib.util.find_spec(package)
        if place is not None and place.submodule_search_locations:
            found[name] = Path(place.submodule_search_locations[0]) / inside
        else:
            print(f"{name}: left out, the package {package} is not installed")
    return found


def _seconds(function: Callable[[], Any]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def _measured(path: Path) -> dict[str, float]:
    ours, theirs = [], []
    for _ in range(ROUNDS + 1):
        theirs.append(_seconds(lambda: onnx.checker.check_model(onnx.load(path))))
        ours.append(_seconds(lambda: read(path, Limits())))
    pairs = zip(ours[1:], theirs[1:], strict=True)
    return {
        "megabytes": path.stat().st_size / 1e6,
        "load_and_check": statistics.median(theirs[1:]),
        "import": statistics.median(ours[1:]),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def run() -> bool:
    """Measure, print, save; whether the figure holds for every file."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="secateur-bench-") as folder:
            rows = {name: _measured(path) for name, path in _files(Path(folder)).items()}
    finally:
        torch.set_num_threads(threads)
    table(
        [[name, r["megabytes"], 1e3 * r["load_and_check"], 1e3 * r["import"], r["ratio"]]
         for name, r in rows.items()],
        ["file", "MB", "load + check, ms", "import, ms", "ratio"],
    )  # fmt: skip
    held = all(row["ratio"] <= LIMIT for row in rows.values())
    print(f"figure (at most {LIMIT:g} times, every file) {'held' if held else 'MISSED'}")
    save("import_cost", {"rounds": ROUNDS, "files": rows, "held": held})
    return held
