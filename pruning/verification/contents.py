"""The files beside the numbers: the graph, the masks, the sparse file, the points of the curve."""

import tempfile
from pathlib import Path

import numpy as np
import torch

from pruning.errors import SecateurError
from pruning.formats import sparse
from pruning.formats.masks import read_masks
from pruning.formats.registry import read_model
from pruning.progress import Narrator
from pruning.report.schema import Check
from pruning.verification.outcome import judged
from pruning.verification.written import Written


def contents(written: Written, narrator: Narrator) -> list[Check]:
    """All checks on them, of those files that there are."""
    checks = [graph_kept(written)]
    if (path := written.of("masks")) is not None:
        checks.append(masks_file(written, path))
    if (path := written.of("sparse")) is not None:
        checks.append(sparse_file(written, path))
    if written.reference.points:
        checks.append(curve_files(written, narrator))
    return checks


def graph_kept(written: Written) -> Check:
    """All of the upload but its numbers is as it was."""
    same = written.again.skeleton() == written.uploaded.skeleton()
    return judged(
        "graph_kept",
        same,
        int(not same),
        0,
        "The graph, its names, inputs and outputs are those of the upload.",
        "The graph of the written file differs from the upload.",
    )


def masks_file(written: Written, path: Path) -> Check:
    """The masks that were applied."""
    masks = written.reference.masks
    try:
        found = read_masks(path)
    except SecateurError as error:
        return _unreadable("masks_file", error)
    wrong = len(found.keys() ^ masks.keys())
    for name in found.keys() & masks.keys():
        wrong += int(not np.array_equal(found[name], masks[name]))
    return judged(
        "masks_file",
        wrong == 0,
        wrong,
        0,
        "The masks file, read again, holds the masks that were applied.",
        f"{wrong} masks of the masks file are not those that were applied.",
    )


def sparse_file(written: Written, path: Path) -> Check:
    """What the sparse file unpacks to is the model's own files, byte for byte."""
    native = {file.name: file for file in written.native}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = {file.name: file for file in sparse.unpack(path, Path(scratch))}
        except (SecateurError, ValueError, OSError) as error:
            return _unreadable("sparse_file", error)
        wrong = len(found.keys() ^ native.keys())
        for name in found.keys() & native.keys():
            wrong += int(not _same(found[name], native[name]))
    return judged(
        "sparse_file",
        wrong == 0,
        wrong,
        0,
        "The sparse file unpacks to the pruned model, bit for bit.",
        f"{wrong} files that the sparse file unpacks to are not those of the pruned model.",
    )


def curve_files(written: Written, narrator: Narrator) -> Check:
    """Every point's file is read as a model, with as many zeros as its network had in memory."""
    wrong: list[str] = []
    points = {p.artifact: p for p in written.report.curve if p.artifact is not None}
    for done, (name, zeros) in enumerate(written.reference.points.items()):
        narrator.progress(done, len(written.reference.points), "files of the curve")
        try:
            path = written.folder / written.request.outputs[name].path
            module = read_model(path, written.request.limits).module
            found = zeros_in(module, list(written.reference.masks))
        except (SecateurError, KeyError, AttributeError):
            wrong.append(name)
            continue
        if found < zeros or name not in points or found < points[name].removed:
            wrong.append(name)
    return judged(
        "curve_files",
        not wrong,
        len(wrong),
        0,
        f"Each of the {len(written.reference.points)} files of the curve was read again and holds "
        "the zeros of its point.",
        f"Files of the curve that can't be read or lack zeros: {', '.join(wrong)}.",
    )


def zeros_in(module: torch.nn.Module, names: list[str]) -> int:
    """Zeros of these parameters."""
    return sum(int((module.get_parameter(name) == 0).sum()) for name in names)


def _same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        while chunk := a.read(1 << 20):
            if chunk != b.read(1 << 20):
                return False
    return True


def _unreadable(name: str, error: Exception) -> Check:
    return Check(name=name, status="fail", message=f"The file can't be read again: {error}")
