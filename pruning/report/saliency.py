"""Saliencies of one layer as quantiles and a histogram. Numpy only."""

import numpy as np

from pruning.report.schema import Saliency, SaliencyHistogram

BINS = 40


def summarise(
    values: np.ndarray, removed: np.ndarray, bins: int = BINS
) -> tuple[Saliency, SaliencyHistogram]:
    """Quantiles and log-spaced histogram of one layer's saliencies.

    Args:
        values: Saliency of each weight, flat, shape [n].
        removed: True where the weight was removed, shape [n].
        bins: Number of bins.

    Returns:
        The quantiles over the finite values, and the histogram over the positive finite ones.
    """
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    gone = np.asarray(removed, dtype=bool).reshape(-1)
    finite = flat[np.isfinite(flat)]
    if finite.size:
        low, q25, median, q75, high = (
            float(q) for q in np.quantile(finite, [0.0, 0.25, 0.5, 0.75, 1.0])
        )
        quantiles = Saliency(min=low, q25=q25, median=median, q75=q75, max=high)
    else:
        quantiles = Saliency(min=None, q25=None, median=None, q75=None, max=None)
    return quantiles, _histogram(flat, gone, bins)


def _histogram(flat: np.ndarray, gone: np.ndarray, bins: int) -> SaliencyHistogram:
    shown = np.isfinite(flat) & (flat > 0)
    hidden = int(flat.size - shown.sum())
    if not shown.any():
        return SaliencyHistogram(edges=[], counts=[], removed=[], not_positive=hidden)
    # The ends of the range of float64 would make an edge of 0 or infinity.
    logs = np.clip(np.log10(flat[shown]), -300.0, 300.0)
    low, high = float(logs.min()), float(logs.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    counts, _ = np.histogram(logs, edges)
    removed, _ = np.histogram(logs[gone[shown]], edges)
    return SaliencyHistogram(
        edges=[float(e) for e in 10.0**edges],
        counts=counts.tolist(),
        removed=removed.tolist(),
        not_positive=hidden,
    )
