"""The budget of a job, from its network and what intake learned of it."""

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pruning.budget import Budget, Part
from pruning.budget import bytes as bytes_of_file
from pruning.facts import LayerFact
from pruning.formats.sparse import packed_bytes, stored_bytes
from pruning.formats.sparse.choice import FILE_BYTES
from pruning.layers import Prunable
from pruning.registry import method
from pruning.spec.amount import limit_of
from pruning.state import state_of
from pruning.uses import observed

if TYPE_CHECKING:
    from pruning.job import Job


MEASURED = 4 << 20
"""Bytes of a module in memory up to which it is found out what its sparse file would take."""

NUMPY = (torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.bool)
"""Types that NumPy has, as most networks."""


def budget_of(job: "Job") -> Budget | None:
    """What may remain; None where the target is a number of weights, or a drop.

    Raises:
        SecateurError: `spec_conflict` where it can't be met.
    """
    target = job.spec.target
    kind = target.kind
    if kind not in ("bytes", "flops"):
        return None
    asked = getattr(target, kind)
    found = counting(job, kind)
    whole = _bytes_of_all(job) if kind == "bytes" else found.dense
    limit = limit_of(asked, whole)
    start = [int((~part).sum()) for part in job.weights.split(job.existing.gone)]
    found = replace(found, limit=limit, start=start)
    found.check()
    return found


def counting(job: "Job", kind: str) -> Budget:
    """A budget without a limit, to count with: `of` says what some weights cost."""
    uses = _uses(job) if kind == "flops" else [0.0] * len(job.weights.layers)
    parts = [
        Part(p.name, tuple(p.weight.shape), _itemsize(job, p), used)
        for p, used in zip(job.weights.layers, uses, strict=True)
    ]
    limit = float("inf")
    if kind != "bytes":
        return Budget(kind, limit, 0, parts, method("budget", kind).cost)
    whole = _packed(job)
    if whole is None:
        return Budget(kind, limit, _rest(job), parts, method("budget", kind).cost, bound="up to")
    kept = [n - zero for n, zero in zip(job.weights.sizes, job.existing.found, strict=True)]
    rest = bytes_of_file.rest_of(whole, parts, kept)
    return Budget(kind, limit, rest, parts, bytes_of_file.cost_within(whole), bound="about")


def multiply_adds_known(job: "Job") -> bool:
    """Whether they are known without a pass through the network."""
    return _uses_in_facts(job, job.layer_facts) is not None or "uses" in job.dense.known


def _uses(job: "Job") -> list[float]:
    found = _uses_in_facts(job, job.layer_facts) or job.dense.known.get("uses")
    if found is None:
        batch = None if job.facts is None else job.facts.batch
        made: dict[int, int] = defaultdict(int)
        seen = observed(job.module, job.data.calibration, batch)
        for path, count in (seen.multiply_adds or {}).items():
            made[id(job.module.get_parameter(path))] += count
        found = [made[id(p.weight)] / p.weight.numel() for p in job.weights.layers]
        job.dense.known["uses"] = found
    uses: list[float] = found
    return uses


def _uses_in_facts(job: "Job", layers: list[LayerFact]) -> list[float] | None:
    """How often a sample uses an entry of each weight, in all layers that share it."""
    facts = {f.name: f for f in layers}
    found = []
    for p in job.weights.layers:
        shared = [facts.get(name) for name in (p.label, *p.aliases)]
        if any(f is None or f.macs is None for f in shared):
            return None
        found.append(sum((f.macs or 0) / f.parameters for f in shared if f is not None))
    return found


def _itemsize(job: "Job", p: Prunable) -> int:
    """In the file: the half types are computed in float32."""
    facts: list[LayerFact] = [] if job.facts is None else job.facts.layers
    names = [f.dtype for f in facts if f.name == p.label]
    return getattr(torch, names[0]).itemsize if names else _own_size(job, p.name, p.weight)


def _own_size(job: "Job", name: str, tensor: Tensor) -> int:
    """Bytes an entry of a module's tensor in its own type."""
    return job.own_types.get(name, tensor.dtype).itemsize


def _others(job: "Job") -> dict[str, Tensor]:
    """Tensors of the network that are not in scope, shared ones once."""
    known = {p.weight.data_ptr() for p in job.weights.layers}
    found: dict[str, Tensor] = {}
    for name, tensor in state_of(job.module).items():
        if tensor.data_ptr() not in known or not tensor.numel():
            known.add(tensor.data_ptr())
            found[name] = tensor
    return found


def measure(job: "Job") -> None:
    """Find what the sparse file of a module in memory would take, if that is cheap.

    Of an upload intake has.

    Args:
        job: At the dense weights.
    """
    state = state_of(job.module)
    size = sum(t.numel() * t.element_size() for t in state.values())
    known = all(t.dtype in NUMPY for t in state.values()) and not job.own_types
    if job.facts is None and known and size <= MEASURED:
        arrays = {name: t.detach().cpu().numpy() for name, t in state.items()}
        job.dense.known["packed"] = packed_bytes([], arrays)


def _packed(job: "Job") -> int | None:
    """Bytes of the sparse file of the network as it came; None where nobody packed it."""
    found: int | None = job.dense.known.get("packed")
    return found if job.facts is None else job.facts.sparse_bytes


def _rest(job: "Job") -> int:
    """Bytes of the sparse file beside the weights in scope.

    Of an uploaded model they are those of its files, since the sparse file gives these back; a
    part of them may lie in tensors, each with an entry in the header.
    """
    in_scope = sum(p.weight.numel() * _itemsize(job, p) for p in job.weights.layers)
    uploaded = None if job.facts is None else job.facts.bytes
    others = _others(job)
    if uploaded is None:
        return FILE_BYTES + sum(
            stored_bytes(
                t.numel(), tuple(t.shape), _own_size(job, name, t), name_bytes=len(name) + 8
            )
            for name, t in others.items()
        )
    headers = sum(stored_bytes(0, (0,), 1, name_bytes=len(name) + 8) for name in others)
    return FILE_BYTES + headers + max(0, uploaded - in_scope)


def _bytes_of_all(job: "Job") -> int:
    """Of all weights in the file, in scope or not, shared ones once."""
    sizes = {p.weight.data_ptr(): _itemsize(job, p) for p in job.weights.layers}
    types = [] if job.facts is None else job.facts.dtypes
    single = getattr(torch, types[0]).itemsize if len(types) == 1 else None
    parameters = {p.data_ptr(): (name, p) for name, p in job.module.named_parameters()}
    return sum(
        p.numel() * sizes.get(at, single or _own_size(job, name, p))
        for at, (name, p) in parameters.items()
    )
