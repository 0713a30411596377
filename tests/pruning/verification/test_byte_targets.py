"""A target in bytes is a promise about a file, so the file is held to it."""

import pytest

from pruning.report.schema import Sizes
from pruning.report.study import Budget
from pruning.verification import gates
from tests.pruning.verification.conftest import Half, Prunes

OUTPUTS = {"outputs": ["native", "sparse"]}


def share(prunes: Prunes) -> Half:
    return prunes(OUTPUTS | {"target": {"bytes": 0.99}})


def test_a_share_of_the_bytes_is_told_as_a_limit_which_the_file_keeps(prunes: Prunes):
    half = share(prunes)
    result = half.verify()
    assert result.rejected is None
    report = half.report()
    budget, size = report["budget"], report["sizes"]["sparse_bytes"]
    # All parameters of the network are float32.
    assert budget["limit"] == int(0.99 * 4 * report["model"]["parameters"] + 1e-6)
    assert size <= budget["remaining"] <= budget["limit"]
    (check,) = [c for c in report["checks"] if c["name"] == "target.bytes"]
    assert (check["group"], check["status"]) == ("gate", "pass")
    assert (check["value"], check["threshold"]) == (size, budget["limit"])


def test_a_file_over_its_target_is_rejected_with_the_place_and_what_to_do(prunes: Prunes):
    half = share(prunes)
    draft = half.draft
    assert draft.budget is not None
    size = half.path("digits.sparse.safetensors").stat().st_size
    draft.budget.limit = size - 1
    half.draft = draft
    rejected = half.verify().rejected
    assert rejected is not None
    assert rejected.where == "spec.target.bytes"
    assert f"{size:,} bytes" in rejected.message
    assert "fewer bytes" in (rejected.hint or "")
    assert (half.folder / "out" / "report.html").exists()


@pytest.mark.parametrize(("size", "status"), [(8000, "pass"), (8001, "fail"), (None, "fail")])
def test_a_number_of_bytes_is_that_of_the_spec_whatever_the_draft_says(
    prunes: Prunes, size: int | None, status: str
):
    draft = prunes(OUTPUTS | {"target": {"bytes": 8000}}).draft
    assert draft.budget is not None
    assert draft.budget.limit == 8000
    draft.budget = Budget(kind="bytes", limit=10**9, remaining=1)
    sizes = Sizes(uploaded_bytes=1, pruned_bytes=1, sparse_bytes=size)
    (check,) = gates.target_bytes(draft, sizes)
    assert (check.status, check.threshold) == (status, 8000)


def test_other_targets_have_no_such_gate_and_flops_a_limit(prunes: Prunes):
    half = prunes({"target": {"flops": 0.25}})
    half.verify()
    report = half.report()
    assert not [c for c in report["checks"] if c["name"].startswith("target")]
    budget = report["budget"]
    assert budget["kind"] == "flops"
    assert 0 < budget["remaining"] <= budget["limit"]
    (point,) = report["curve"]
    assert point["multiply_adds"] == budget["remaining"]
    assert prunes({"target": {"sparsity": 0.6}}).draft.budget is None
