"""The few numbers of a report that lists of jobs show. Torch-free."""

from pydantic import Field

from pruning.report.schema import Loss, Report, Sizes, Sparsity
from pruning.report.section import Section


class Stages(Section):
    """One metric before, after the last removal, and after recovery; null where not measured."""

    dense: float | None
    pruned: float | None
    recovered: float | None


class Summary(Section):
    """A few numbers of a report."""

    sparsity: Sparsity
    metrics: dict[str, Stages] = Field(description="By the metric's name.")
    loss: Loss
    sizes: Sizes | None = Field(description="Null where no file was written.")
    warnings: int = Field(description="How many warnings the report holds.")


def summary(report: Report) -> Summary:
    """The report's numbers for lists."""
    stages = report.metrics.model_dump(mode="json", include={"dense", "pruned", "recovered"})
    metrics = {
        name: Stages(
            **{stage: (found or {}).get(name, {}).get("value") for stage, found in stages.items()}
        )
        for name in report.metrics.dense
    }
    return Summary(
        sparsity=report.sparsity,
        metrics=metrics,
        loss=report.loss,
        sizes=report.sizes,
        warnings=len(report.warnings),
    )
