"""The schema of report.json, version 1.1. Torch-free.

Everything that varies between two runs of the same job on the same machine stands under
`timings`, `environment` and `latency` alone; `results_json` is the rest as canonical bytes. A
number that is not finite is stored as null, and a warning says so.
"""

import json
from typing import Any, Literal

from pydantic import Field

from pruning.report.scope import ScopeSection
from pruning.report.section import Number
from pruning.report.section import Section as _Section
from pruning.report.study import Budget, Comparison, Drop, Latency, Point, Search, Stopped
from pruning.report.trust import Check, Trust
from pruning.spec import Spec

VOLATILE = ("timings", "environment", "latency")
"""The only top-level keys whose values may differ between two runs of the same job."""


class ModelSection(_Section):
    """The network that was pruned."""

    format: str = Field(description="`onnx` for an uploaded file, `module` for a torch module.")
    name: str = Field(
        default="", description="Display name of the uploaded file; empty for a module."
    )
    sha256: str | None = Field(default=None, description="Digest of the uploaded file.")
    parameters: int = Field(description="All parameters, tied ones counted once.")
    prunable_parameters: int = Field(description="Weights of all prunable layers, ties once.")


class DataRole(_Section):
    """One role the data play."""

    samples: int = Field(description="Samples used.")
    source: Literal["given", "held_out", "calibration"] = Field(
        default="given",
        description="`given`: its own data; `held_out`: a seeded share of the calibration data "
        "that neither calibration nor training sees; `calibration`: the calibration data.",
    )
    name: str | None = Field(default=None, description="Display name of the file.")
    sha256: str | None = Field(default=None, description="Digest of the file.")


class DataSection(_Section):
    """Which samples were used for what."""

    calibration: DataRole = Field(description="Curvature, saliencies, predicted and measured loss.")
    training: DataRole = Field(description="Fine-tuning; not used without recovery.")
    evaluation: DataRole = Field(description="Metrics.")


class Sparsity(_Section):
    """How much was removed, of the weights in scope."""

    target: Number = Field(
        description="Share asked for; null where the target is none, see `spec.target`."
    )
    achieved: float = Field(description="removed / total.")
    removed: int = Field(
        description="Positions masked, exactly; zeros of the upload that stay zero are among them."
    )
    total: int = Field(description="Weights in scope.")
    found: int = Field(
        default=0, description="Weights in scope that are zero in the upload; see scope."
    )


class Saliency(_Section):
    """Quantiles of the saliencies of one layer."""

    min: Number = Field(description="Smallest.")
    q25: Number = Field(description="First quartile.")
    median: Number = Field(description="Median.")
    q75: Number = Field(description="Third quartile.")
    max: Number = Field(description="Largest.")


class SaliencyHistogram(_Section):
    """Histogram of the positive finite saliencies of one layer, bins of equal width in log10."""

    edges: list[float] = Field(description="Bin edges, ascending, one more than counts.")
    counts: list[int] = Field(description="Weights a bin, kept and removed.")
    removed: list[int] = Field(description="Of `counts`, those that were removed.")
    not_positive: int = Field(default=0, description="Weights with a saliency <= 0 or not finite.")


class LayerOutput(_Section):
    """How far a layer's outputs moved when it was pruned by itself."""

    layer: str = Field(description="Path of the weight.")
    round: int = Field(description="The step, from 1.")
    error: Number = Field(
        description="|X (W - A)|^2 a sample and position: the outputs' squared distance from those "
        "aimed at, on the calibration data as the layer sees them, undamped."
    )
    relative_error: Number = Field(description="error / |X A|^2.")
    columns: int = Field(description="Inputs it was measured on: samples times positions.")
    entries: int = Field(description="Numbers an input; fewer columns leave some unknown.")
    dead_inputs: int = Field(description="Entries that are zero in every input.")


class LayerReport(_Section):
    """One prunable layer, in module order; layers out of scope are listed with `in_scope` false."""

    name: str = Field(
        description="Module path of the layer, or of the weight where a layer has several."
    )
    kind: str = Field(
        description="Linear, Conv2d, ConvTranspose2d, LSTM, MultiheadAttention and so on; MatMul "
        "for a parameter that a product multiplies by and no layer of torch's holds."
    )
    shape: list[int] = Field(description="Shape of the weight, torch layout.")
    parameters: int = Field(description="Entries of the weight.")
    zeros: int = Field(description="Entries that are exactly zero in the result.")
    sparsity: float = Field(description="zeros / parameters.")
    layer: str | None = Field(
        default=None, description="Path of the layer, where `name` is that of one of its weights."
    )
    in_scope: bool = Field(default=True, description="Whether the spec allows it to be pruned.")
    removed: int = Field(default=0, description="Positions masked, zeros of the upload among them.")
    found: int = Field(default=0, description="Entries that are zero in the upload, in scope.")
    saliency: Saliency | None = Field(
        default=None,
        description="Each weight's saliency when it was last scored (removed weights: when they "
        "were removed); null out of scope.",
    )
    saliency_histogram: SaliencyHistogram | None = Field(
        default=None, description="The same values as counts."
    )
    output_error: Number = Field(
        default=None,
        description="Relative error of the layer's outputs when it was last pruned by itself; null "
        "without compensation layerwise.",
    )
    predicted_loss_increase: Number = Field(
        default=None,
        description="This layer's share of `loss.predicted_increase`, summed over the steps: "
        "g_l.dw_l + 1/2 dw_l.(H dw)_l, H undamped. It holds half of what the layer's change has in "
        "common with each other layer's, so that the shares add up to the whole; a layer whose "
        "change makes up for another's may have a negative one.",
    )


class Loss(_Section):
    """The loss on the calibration data."""

    dense: Number = Field(description="Before anything was removed.")
    pruned: Number = Field(
        description="After the last removal and compensation, before the recovery that follows it."
    )
    recovered: Number = Field(default=None, description="After recovery; null without recovery.")
    predicted_increase: Number = Field(
        description="g.dw + 1/2 dw'H dw with the undamped H, summed over the steps."
    )
    measured_increase: Number = Field(
        description="Loss after minus loss before each removal, summed over the steps."
    )
    criterion_predicted_increase: Number = Field(
        default=None,
        description="The criterion's own prediction, which takes the gradient as zero, summed over "
        "the steps: for obs 1/2 dw'(H + damping I)dw of each step's whole change, with the matrix "
        "and damping that it inverts; for others the sum of the removed weights' saliencies, "
        "each as if it were the only one to go. Null where these are not in units of the loss.",
    )


class MetricValue(_Section):
    """One measured metric."""

    value: Number = Field(description="The value; accuracy is a share between 0 and 1.")
    low: Number = Field(default=None, description="Lower end of its 95 % interval.")
    high: Number = Field(default=None, description="Upper end.")
    samples: int = Field(description="Samples it was measured on.")
    split: Literal["evaluation"] = Field(
        default="evaluation", description="The data it was measured on."
    )


class Metrics(_Section):
    """Metrics by name at each stage; an empty mapping where none applies to the objective."""

    dense: dict[str, MetricValue] = Field(description="The uploaded network.")
    pruned: dict[str, MetricValue] = Field(
        description="After the last removal and compensation, before the recovery that follows it."
    )
    recovered: dict[str, MetricValue] | None = Field(
        default=None, description="After recovery; null without recovery."
    )
    drops: dict[str, Drop] = Field(
        default={}, description="How far each fell from the dense to the delivered network."
    )

    @property
    def final(self) -> dict[str, MetricValue]:
        """The metrics of the network that was delivered."""
        return self.pruned if self.recovered is None else self.recovered


class Round(_Section):
    """One step of the schedule: score, remove, compensate and, where asked for, recover."""

    index: int = Field(description="From 1.")
    sparsity: float = Field(description="Share of the weights in scope removed after this step.")
    removed: int = Field(description="Positions removed in this step.")
    predicted_increase: Number = Field(description="Undamped quadratic model, this step's change.")
    matrix: Literal["hessian", "gauss_newton"] = Field(
        default="hessian",
        description="H of the quadratic model g.dw + 1/2 dw'H dw: the exact Hessian, or the "
        "Gauss-Newton matrix where the network has no second derivatives. The same for the ladder.",
    )
    not_predicted: str | None = Field(
        default=None, description="Why predicted_increase is null, the layer named where known."
    )
    criterion_predicted_increase: Number = Field(
        default=None, description="The criterion's own prediction for this step's whole change."
    )
    measured_increase: Number = Field(description="loss_pruned - loss_before.")
    damping: Number = Field(
        default=None,
        description="Damping used, in units of the mean diagonal; null without an inverse.",
    )
    without_curvature: int = Field(
        default=0,
        description="Weights left before this step whose curvature was zero with no damping: they "
        "have saliency 0 and stay where they are.",
    )
    loss_before: Number = Field(description="Calibration loss before the removal.")
    loss_pruned: Number = Field(description="Calibration loss after removal and compensation.")
    loss_recovered: Number = Field(
        default=None, description="After recovery; null without recovery."
    )


class DampingTrial(_Section):
    """One value tried for `damping: auto`."""

    round: int = Field(description="The step it was tried in, from 1.")
    damping: float = Field(description="In units of the mean diagonal.")
    loss: Number = Field(
        description="Loss of the pruned network on held-out calibration samples; null if it failed."
    )
    predicted_increase: Number = Field(
        default=None, description="Undamped quadratic model on the held-out samples."
    )
    measured_increase: Number = Field(
        default=None, description="Loss after minus loss before, on the held-out samples."
    )
    error: str | None = Field(default=None, description="Why this value could not be used.")
    chosen: bool = Field(default=False, description="Whether it was taken.")


class Curvature(_Section):
    """What the criterion knew of the loss surface."""

    kind: Literal[
        "none",
        "ggn_diagonal",
        "ggn_mc",
        "empirical_fisher",
        "hessian_diagonal",
        "hutchinson",
        "second_backprop",
        "ggn_full",
        "hessian_full",
        "empirical_fisher_full",
        "block_fisher",
        "low_rank",
        "kfac",
        "ekfac",
    ] = Field(description="none for magnitude; ggn_full is the dense Gauss-Newton matrix.")
    weights: int = Field(description="Weights it covers in the first step.")
    samples: int = Field(description="Calibration samples it was computed from; 0 for none.")
    block: int | None = Field(default=None, description="Weights a block of block_fisher.")
    damping: Number = Field(default=None, description="Damping of the last step.")
    general_path: list[str] = Field(
        default=[],
        description="Weights whose squared derivatives were taken sample by sample, since no layer "
        "kind describes how the model uses them: the same numbers, more slowly.",
    )


class Substitution(_Section):
    """Something the spec allowed the job to choose or replace, and what was taken."""

    where: str = Field(description="Spec field or layer.")
    asked: str = Field(description="What the spec says.")
    used: str = Field(description="What was done.")
    reason: str = Field(description="Why.")


class ReportWarning(_Section):
    """Something the reader should know."""

    code: str = Field(description="Stable code.")
    message: str = Field(description="Plain words.")
    where: str | None = Field(default=None, description="Layer, array or spec field.")


class Sizes(_Section):
    """Bytes of the files. Zeros alone do not make an ONNX file smaller."""

    uploaded_bytes: int = Field(description="The uploaded file.")
    pruned_bytes: int = Field(description="The pruned file, same format.")
    uploaded_gzip_bytes: int | None = Field(
        default=None, description="Uploaded file, gzip level 6."
    )
    pruned_gzip_bytes: int | None = Field(default=None, description="Pruned file, gzip level 6.")
    masks_bytes: int | None = Field(default=None, description="Masks, one bit a weight.")
    sparse_bytes: int | None = Field(default=None, description="The sparse file.")


class ArtifactEntry(_Section):
    """One file that the job delivers beside the report."""

    name: str = Field(description="File name.")
    bytes: int = Field(description="Size.")
    sha256: str = Field(description="Digest.")
    format: str = Field(description="onnx, masks, sparse, point, ...")


class Environment(_Section):
    """What the job ran on."""

    secateur: str = Field(description="Version of this package.")
    python: str = Field(description="Version.")
    torch: str = Field(description="Version.")
    numpy: str = Field(description="Version.")
    onnx: str | None = Field(default=None, description="Version; null for a torch module.")
    onnxruntime: str | None = Field(default=None, description="Version; null for a torch module.")
    platform: str = Field(description="Operating system and machine.")
    threads: int = Field(description="Threads of one operation in torch.")
    onnxruntime_threads: int | None = Field(
        default=None, description="The same in onnxruntime; null where it ran nothing."
    )
    device: str = Field(description="cpu or cuda, with the device's name.")


class Report(_Section):
    """What was removed, what it was predicted to cost, what it did cost."""

    schema_version: Literal["1.2"] = Field(default="1.2", description="Version of this schema.")
    model: ModelSection = Field(description="The network that was pruned.")
    data: DataSection = Field(description="Which samples were used for what.")
    spec: Spec = Field(description="The complete spec, defaults filled in.")
    seed: int = Field(description="The seed everything random was drawn from.")
    sparsity: Sparsity = Field(description="How much was removed.")
    scope: ScopeSection | None = Field(
        default=None,
        description="Which share of the network was in scope; null in reports of older versions.",
    )
    layers: list[LayerReport] = Field(description="All prunable layers, in module order.")
    loss: Loss = Field(description="The loss on the calibration data.")
    metrics: Metrics = Field(description="Metrics on the evaluation data.")
    rounds: list[Round] = Field(description="The steps of the schedule.")
    stopped: Stopped | None = Field(
        default=None, description="Rounds that ended early; null where none did."
    )
    curve: list[Point] = Field(
        default=[], description="Every sparsity the job went to, ascending; the result among them."
    )
    budget: Budget | None = Field(
        default=None, description="A target in bytes or flops; null for any other."
    )
    search: Search | None = Field(
        default=None, description="How a target max_drop was reached; null without one."
    )
    comparison: Comparison | None = Field(
        default=None, description="Criteria at the same sparsity; null where none were compared."
    )
    layer_outputs: list[LayerOutput] = Field(
        default=[], description="Compensation layerwise: each layer in the order it was solved."
    )
    damping_sweep: list[DampingTrial] = Field(
        default=[], description="Values tried for damping: auto."
    )
    curvature: Curvature = Field(description="What the criterion knew of the loss surface.")
    substitutions: list[Substitution] = Field(
        default=[], description="What was chosen or replaced."
    )
    warnings: list[ReportWarning] = Field(default=[], description="What the reader should know.")
    checks: list[Check] = Field(
        default=[],
        description="Assumptions of the theory, gates, and checks on the files; see `group`.",
    )
    trust: Trust | None = Field(
        default=None, description="How far the numbers can be trusted; null where switched off."
    )
    sizes: Sizes | None = Field(
        default=None, description="Sizes of the files; null for a torch module."
    )
    artifacts: list[ArtifactEntry] = Field(
        default=[],
        description="Files delivered, the report itself excepted; empty for a torch module.",
    )
    timings: dict[str, float] = Field(
        description="Seconds a phase; a dotted name is part of the phase before the dot."
    )
    environment: Environment = Field(description="What the job ran on.")
    latency: Latency | None = Field(
        default=None, description="Of the delivered file; null for a torch module."
    )


def report_json(report: Report) -> bytes:
    """The bytes of report.json."""
    return _canonical(report.model_dump(mode="json"), indent=2) + b"\n"


def results_json(report: Report) -> bytes:
    """Canonical bytes of everything but what is `VOLATILE`.

    Two runs of the same job on the same recorded environment give the same bytes.
    """
    return _canonical(report.model_dump(mode="json", exclude=set(VOLATILE)))


def _canonical(values: dict[str, Any], indent: int | None = None) -> bytes:
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(
        values,
        allow_nan=False,
        ensure_ascii=False,
        indent=indent,
        separators=separators,
        sort_keys=indent is None,
    ).encode()
