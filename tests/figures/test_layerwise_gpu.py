"""The arithmetic of the GPU benchmark, on layers that a CPU solves at once."""

import pytest
import torch

from benchmarks import layerwise_gpu as bench
from benchmarks.common import Skipped

torch.set_num_threads(1)
CPU = torch.device("cpu")


def test_operations_are_counted_by_shape_and_factorisations_by_their_leading_terms():
    a, b = torch.randn(5, 7), torch.randn(7, 3)
    assert bench.operations(lambda: a @ b) == 2 * 5 * 7 * 3
    matrices = torch.eye(6).expand(2, 6, 6).contiguous()
    assert bench.operations(lambda: torch.linalg.cholesky_ex(matrices)) == 2 * 6**3 // 3
    assert bench.operations(lambda: torch.cholesky_inverse(matrices[0])) == 2 * 6**3 // 3
    right = torch.randn(2, 6, 4)
    assert (
        bench.operations(lambda: torch.linalg.solve_triangular(matrices, right, upper=False))
        == 2 * 6**2 * 4
    )


def test_the_gram_matrix_is_that_of_correlated_inputs():
    weight, gram = bench.layer(8, 32, CPU)
    assert (weight.shape, gram.shape) == ((8, 32), (32, 32))
    values = torch.linalg.eigvalsh(gram.double())
    assert values[0] > 0
    assert values[-1] > 20 * values.median()
    root = gram.diagonal().rsqrt()
    apart = (gram * root * root[:, None]).fill_diagonal_(0.0)
    assert float(apart.abs().max()) > 0.2


def test_every_layer_and_pattern_is_measured_with_more_error_for_the_tighter_pattern():
    cases = bench.measure(CPU, bench.TINY, None)
    assert list(cases) == ["32 x 16, 50 %", "32 x 16, 2:4", "24 x 48, 50 %", "24 x 48, 2:4"]
    for rows in cases.values():
        assert list(rows) == ["SparseGPT", "admm", "admm, high effort"]
        assert all(0 < r["error"] < 1 for r in rows.values())
        assert all(r["operations"] > 0 and r["seconds"] > 0 for r in rows.values())
        assert rows["admm, high effort"]["operations"] > rows["admm"]["operations"]
        assert rows["admm, high effort"]["error"] < rows["SparseGPT"]["error"]
    for free, tight in (("32 x 16, 50 %", "32 x 16, 2:4"), ("24 x 48, 50 %", "24 x 48, 2:4")):
        assert cases[free]["admm"]["error"] < cases[tight]["admm"]["error"]
    assert bench.figures(cases) == {}


def test_a_figure_is_held_up_to_its_limit_and_no_further():
    rows = {
        bench.REFERENCE: {"error": 0.1, "seconds": 1.0},
        "SparseGPT": {"error": 0.1, "seconds": 0.75},
        "admm": {"error": 0.09, "seconds": 3.0},
    }
    found = bench.figures({"case": rows})
    held = {name.removeprefix("case, ").removesuffix(" / reference"): f["held"]
            for name, f in found.items()}  # fmt: skip
    assert held == {
        "SparseGPT: time": False,
        "SparseGPT: error": True,
        "admm: time": True,
        "admm: error": True,
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it would run")
def test_without_a_gpu_it_is_skipped():
    with pytest.raises(Skipped, match="GPU"):
        bench.run()
