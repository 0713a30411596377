"""A made-up report with every section, of any number of layers: for measuring and looking at pages.

Nothing in it was measured; its numbers only have the shape of real ones.
"""

import numpy as np

from pruning.report.saliency import summarise
from pruning.report.schema import (
    ArtifactEntry,
    Check,
    Curvature,
    DampingTrial,
    DataRole,
    DataSection,
    Environment,
    LayerOutput,
    LayerReport,
    Loss,
    Metrics,
    MetricValue,
    ModelSection,
    Report,
    ReportWarning,
    Round,
    Sizes,
    Sparsity,
    Substitution,
)
from pruning.report.study import (
    Compared,
    ComparedRun,
    Comparison,
    Difference,
    Drop,
    Latency,
    Point,
    Search,
    Times,
)
from pruning.report.trust import (
    Bootstrap,
    DeadInputs,
    Ladder,
    LayerInterval,
    LayerLadder,
    Rung,
    Trust,
)
from pruning.spec import Spec

SPARSITY, DENSE, SAMPLES = 0.9, 0.942, 2000
_SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.875, 0.9, 0.92, 0.94, 0.96, 0.98)


def example(layers: int = 12, seed: int = 0) -> Report:
    """The report of a job that searched, swept, compared and timed."""
    draw = np.random.default_rng(seed)
    found = [_layer(i, layers, draw) for i in range(layers)]
    total = sum(x.parameters for x in found if x.in_scope)
    removed = sum(x.removed for x in found)
    return Report(
        model=ModelSection(
            format="onnx", name="digits-cnn.onnx", sha256="3f" * 32, parameters=total + 1290,
            prunable_parameters=total,
        ),
        data=DataSection(
            calibration=DataRole(samples=200, name="calibration.npz", sha256="c1" * 32),
            training=DataRole(samples=3000, name="training.npz", sha256="7e" * 32),
            evaluation=DataRole(samples=SAMPLES, name="evaluation.npz", sha256="e5" * 32),
        ),
        spec=Spec.model_validate(
            {
                "criterion": {"kind": "obs", "inverse": "block_fisher", "damping": "auto"},
                "target": {"max_drop": {"metric": "accuracy", "drop": 0.01}},
                "schedule": {"kind": "rounds", "rounds": 5},
                "recovery": {"kind": "fine_tune", "epochs": 3},
                "gates": {"max_drop": {"accuracy": 0.01}},
                "seed": 7,
            }
        ),
        seed=7,
        sparsity=Sparsity(target=None, achieved=removed / total, removed=removed, total=total),
        layers=found,
        loss=Loss(
            dense=0.1873, pruned=0.4129, recovered=0.2032, predicted_increase=0.2981,
            measured_increase=0.3417, criterion_predicted_increase=0.3519,
        ),
        metrics=Metrics(
            dense={"accuracy": _value(DENSE)},
            pruned={"accuracy": _value(0.891)},
            recovered={"accuracy": _value(0.936)},
            drops={"accuracy": _drop(0.006)},
        ),
        rounds=_rounds(total),
        curve=_curve(total),
        search=Search(
            metric="accuracy", allowed=0.01, judged_by="estimate", probes=8, low=SPARSITY,
            high=0.92, ended="probes",
        ),
        comparison=_comparison(draw),
        layer_outputs=[
            LayerOutput(
                layer=f"{x.name}.weight", round=1, error=0.01, relative_error=0.002 * (i % 7 + 1),
                columns=400, entries=288 if i % 5 else 512, dead_inputs=i % 4,
            )
            for i, x in enumerate(found)
            if x.in_scope
        ],
        damping_sweep=[
            DampingTrial(
                round=step,
                damping=10.0**power,
                loss=0.2 + 0.05 * step + 0.03 * (power + 2.5) ** 2 / step,
                predicted_increase=0.05 * step,
                measured_increase=0.06 * step,
                chosen=power == (-3 if step < 4 else -2),
            )
            for step in range(1, 6)
            for power in range(-6, 2)
        ],
        curvature=Curvature(
            kind="block_fisher", weights=total, samples=200, block=50, damping=0.01
        ),
        substitutions=[
            Substitution(
                where="spec.criterion.damping", asked="auto",
                used="0.001, 0.001, 0.001, 0.01, 0.01",
                reason="lowest loss on a held-out share of the calibration data, step by step",
            )
        ],
        warnings=[
            ReportWarning(
                code="few_samples", where="data.calibration",
                message="200 calibration samples are few for this many weights.",
            )
        ],
        checks=_checks(),
        trust=_trust(found, total),
        sizes=Sizes(
            uploaded_bytes=4 * total + 9000, pruned_bytes=4 * total + 9000,
            uploaded_gzip_bytes=int(3.7 * total), pruned_gzip_bytes=int(0.62 * total),
            masks_bytes=total // 8 + 900, sparse_bytes=int(0.53 * total) + 1200,
        ),
        artifacts=[
            ArtifactEntry(name=name, bytes=size, sha256=digit * 64, format=kind)
            for name, size, digit, kind in (
                ("digits-cnn.onnx", 4 * total + 9000, "a", "onnx"),
                ("digits-cnn.masks.safetensors", total // 8 + 900, "b", "masks"),
                ("digits-cnn.sparse.safetensors", int(0.53 * total) + 1200, "c", "sparse"),
            )
        ],
        timings={
            "loading": 0.41, "evaluating": 0.9, "scoring": 31.2, "scoring.checks": 4.1,
            "scoring.bootstrap": 9.3, "scoring.ladder": 6.6, "pruning": 12.9, "recovering": 188.0,
            "verifying": 3.2, "exporting": 0.32,
        },
        environment=Environment(
            secateur="0.1.0", python="3.11.2", torch="2.13.0", numpy="2.3.4", onnx="1.20.0",
            onnxruntime="1.24.0", platform="Linux-6.1-x86_64", threads=2, device="cpu",
        ),
        latency=Latency(
            engine="onnxruntime", threads=2, batch=1, runs=200,
            dense=Times(median=0.00121, q25=0.00118, q75=0.00127),
            pruned=Times(median=0.00120, q25=0.00117, q75=0.00128),
            ratio=0.994, ratio_low=0.96, ratio_high=1.03,
            message="The zeros bring no speed: onnxruntime multiplies by them as by any other "
            "number. What would bring speed are smaller layers or kernels for sparse weights.",
        ),
    )  # fmt: skip


def _layer(index: int, layers: int, draw: np.random.Generator) -> LayerReport:
    last = index == layers - 1
    block, part = divmod(index, 4)
    name = (
        "head.output" if last else f"encoder.block{block}.{('conv1', 'conv2', 'mix', 'down')[part]}"
    )
    shape = [10, 64] if last else [64, 32 * (1 + index % 3), 3, 3]
    size = int(np.prod(shape))
    share = 0.0 if last else float(np.clip(SPARSITY + 0.06 * np.sin(index * 1.3), 0, 0.985))
    values = 10.0 ** draw.normal(-6.0 - 0.8 * np.cos(index / 5), 0.9, min(size, 4000))
    gone = values <= np.quantile(values, share) if share else np.zeros(len(values), bool)
    quantiles, histogram = summarise(values, gone)
    zeros = int(share * size)
    return LayerReport(
        name=name,
        kind="Linear" if last else "Conv2d",
        shape=shape,
        parameters=size,
        zeros=zeros,
        sparsity=zeros / size,
        in_scope=not last,
        removed=zeros,
        saliency=None if last else quantiles,
        saliency_histogram=None if last else histogram,
        output_error=None if last else 0.002 * (index % 7 + 1),
        predicted_loss_increase=None if last else 0.002 * (index % 9 + 1),
    )


def _value(accuracy: float) -> MetricValue:
    half = 1.96 * (accuracy * (1 - accuracy) / SAMPLES) ** 0.5
    return MetricValue(value=accuracy, low=accuracy - half, high=accuracy + half, samples=SAMPLES)


def _drop(value: float) -> Drop:
    half = 2.73 * (max(abs(value), 0.004) * 1.6 / SAMPLES) ** 0.5
    return Drop(value=value, low=value - half, high=value + half, simultaneous=8, samples=SAMPLES)


def _rounds(total: int) -> list[Round]:
    reached = (0.44, 0.71, 0.84, 0.89, SPARSITY)
    rounds, before, loss = [], 0.0, 0.1873
    for index, sparsity in enumerate(reached, 1):
        measured = 0.01 * 2.1**index
        rounds.append(
            Round(
                index=index, sparsity=sparsity, removed=int((sparsity - before) * total),
                predicted_increase=measured * (1.05 - 0.05 * index), measured_increase=measured,
                criterion_predicted_increase=measured * 1.1, damping=0.001 if index < 4 else 0.01,
                loss_before=loss, loss_pruned=loss + measured, loss_recovered=loss + 0.1 * measured,
            )
        )  # fmt: skip
        before, loss = sparsity, loss + 0.1 * measured
    return rounds


def _curve(total: int) -> list[Point]:
    points = []
    for index, sparsity in enumerate(_SPARSITIES):
        drop = 0.0007 * (1 / (1 - sparsity)) ** 0.95 - 0.001
        probe = index % 2 == 1
        points.append(
            Point(
                sparsity=sparsity, removed=int(sparsity * total), loss=0.19 + 2 * drop,
                metrics={"accuracy": DENSE - drop}, drops={"accuracy": _drop(drop)},
                bytes=int((4.4 * (1 - sparsity) + 0.13) * total),
                multiply_adds=int(90 * total * (1 - sparsity)),
                source="target" if sparsity == SPARSITY else "probe" if probe else "curve",
                allowed=drop <= 0.01 if probe or sparsity == SPARSITY else None,
                delivered=sparsity == SPARSITY,
                artifact="digits-cnn.onnx"
                if sparsity == SPARSITY
                else f"digits-cnn.at-{sparsity:.4f}.onnx",
            )
        )  # fmt: skip
    return points


def _comparison(draw: np.random.Generator) -> Comparison:
    means = {"obs": (0.871, 0.936), "obd": (0.802, 0.931), "magnitude": (0.655, 0.934)}
    return Comparison(
        sparsity=SPARSITY,
        criteria=[
            Compared(
                criterion=kind,
                own=kind == "obs",
                runs=[
                    ComparedRun(
                        seed=7 + s,
                        recovered=recovered,
                        loss=0.5 - 0.3 * mean,
                        metrics={
                            "accuracy": mean + float(draw.normal(0, 0.012 - 0.009 * recovered))
                        },
                    )
                    for recovered, mean in enumerate(pair)
                    for s in range(5)
                ],
            )
            for kind, pair in means.items()
        ],
        differences=[
            Difference(
                against=kind, recovered=recovered, quantity="accuracy", value=value,
                low=value - 0.02 + 0.012 * recovered, high=value + 0.02 - 0.012 * recovered,
                verdict="as_good" if recovered else "better",
                message=f"With recovery {kind} is as good: the interval holds zero."
                if recovered
                else f"Without recovery it is better than {kind} on every seed.",
            )
            for kind, values in (("obd", (0.07, 0.004)), ("magnitude", (0.212, 0.002)))
            for recovered, value in zip((False, True), values, strict=True)
        ],
    )  # fmt: skip


def _checks() -> list[Check]:
    return [
        Check(
            name="max_drop.accuracy", group="gate", status="pass", value=0.006, threshold=0.01,
            message="accuracy fell by 0.60 points, from 94.2 % to 93.6 %; a drop of at most "
            "1 point was allowed.",
        ),
        Check(
            name="zeros", status="pass", value=0.0, threshold=0.0,
            message="Every removed weight is exactly zero in the file that was written.",
        ),
        Check(
            name="metrics", status="pass", value=0.0, threshold=1e-4,
            message="The written file, in onnxruntime, gives the metrics of this report.",
        ),
        Check(
            name="trust.gradient_term", group="trust", status="warn", value=0.31, threshold=0.1,
            message="Setting the weights of least saliency to zero changes the loss by 0.021 "
            "through the gradient (norm 0.05) and by 0.067 through the curvature. The network is "
            "not near a minimum: saliencies of OBD and OBS leave the gradient out.",
        ),
        Check(
            name="trust.negative_curvature", group="trust", status="pass", value=0.02,
            threshold=0.1,
            message="About 2.0% of the Hessian's spectral mass lies below zero: little enough for "
            "the Gauss-Newton matrix, which leaves it out, to stand for it.",
        ),
    ]  # fmt: skip


def _trust(layers: list[LayerReport], total: int) -> Trust:
    rungs = [
        Rung(
            sparsity=s, removed=int(s * total), first_order=0.1 * m, second_order=0.9 * p,
            predicted=p, measured=m, own=1.2 * p,
        )
        for s, p, m in (
            (0.1, 0.00012, 0.00011), (0.25, 0.0015, 0.0014), (0.5, 0.018, 0.021), (0.7, 0.09, 0.12),
            (0.8, 0.2, 0.41), (0.9, 0.55, 2.2),
        )
    ]  # fmt: skip
    inside = [x for x in layers if x.in_scope and x.saliency and x.saliency.median]
    medians = [(x, x.saliency.median) for x in inside if x.saliency and x.saliency.median]
    return Trust(
        dead_inputs=[
            DeadInputs(name=x.name, inputs=32, dead=i % 3, weights=9) for i, x in enumerate(inside)
        ],
        bootstrap=Bootstrap(
            resamples=20, batches=8, removed=int(SPARSITY * total), coin_tosses=total // 40,
            layers=[
                LayerInterval(name=x.name, median=m, low=0.7 * m, high=1.5 * m, coin_tosses=120)
                for x, m in medians
            ],
        ),
        ladder=Ladder(
            samples=200, factor=1.5, own_factor=1.25, resolution=2e-6, rungs=rungs,
            holds_up_to=0.7, own_holds_up_to=0.25,
            layers=[LayerLadder(name=x.name, rungs=rungs, holds_up_to=0.8) for x in inside],
        ),
    )  # fmt: skip
