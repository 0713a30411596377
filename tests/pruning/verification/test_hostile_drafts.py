"""What the pruning process leaves is a claim: no draft talks the verifying one out of a check."""

from collections.abc import Callable

import numpy as np
import pytest

from pruning.errors import SecateurError
from pruning.report.schema import Report
from pruning.request import DRAFT, DRAFT_REPORT, REFERENCE
from pruning.spec import parse_spec
from pruning.verification.reference import Reference
from tests.pruning.verification.conftest import QUIET, Half, Prunes

HELD = {
    "target": {"sparsity": 0.6},
    "gates": {
        "max_drop": {"accuracy": 0.9},
        "max_bytes": {"native": 10**6},
        "layer_sparsity": {"fc1": {"max": 0.95}},
    },
}


def refused(half: Half) -> str:
    """Where verification fails, and why; nothing may be delivered."""
    with pytest.raises(SecateurError) as failed:
        half.verify()
    assert failed.value.code == "verification_failed"
    assert not (half.folder / "out").exists()
    return f"{failed.value.where}: {failed.value.message}"


def without_gates(report: Report) -> None:
    report.spec = parse_spec(
        {"criterion": {"kind": "magnitude"}, "trust": QUIET, "target": {"sparsity": 0.6}}
    )


def another_seed(report: Report) -> None:
    report.seed += 1


def no_metrics(report: Report) -> None:
    report.metrics.pruned = {}


def an_invented_metric(report: Report) -> None:
    report.metrics.dense["precision"] = report.metrics.dense["accuracy"]


def a_layer_that_is_not_there(report: Report) -> None:
    report.layers.append(report.layers[0].model_copy(update={"name": "x", "in_scope": False}))


def a_layer_of_no_size(report: Report) -> None:
    report.layers[0].parameters = 0


def no_layers(report: Report) -> None:
    report.layers = []


def a_layer_out_of_scope(report: Report) -> None:
    report.layers[0].in_scope = False


def more_removed(report: Report) -> None:
    report.sparsity.removed += 1


def more_sparsity(report: Report) -> None:
    report.sparsity.achieved = 0.99


def masks_left_out(report: Report) -> None:
    report.artifacts = [x for x in report.artifacts if x.format != "masks"]


def an_odd_kind(report: Report) -> None:
    report.artifacts[0].format = "report.html"


def a_name_twice(report: Report) -> None:
    report.artifacts.append(report.artifacts[0])


def model_beside(report: Report) -> None:
    report.artifacts[0].format = "point"


CLAIMS: list[tuple[Callable[[Report], None], str]] = [
    (without_gates, "draft: "),
    (another_seed, "draft: "),
    (no_metrics, "draft: "),
    (an_invented_metric, "draft: "),
    (a_layer_that_is_not_there, "draft: "),
    (a_layer_of_no_size, "draft: "),
    (no_layers, "draft: "),
    (a_layer_out_of_scope, "draft: "),
    (more_removed, "draft: "),
    (more_sparsity, "draft: "),
    (masks_left_out, "digests: "),
    (an_odd_kind, "draft: "),
    (a_name_twice, "digests: "),
    (model_beside, "draft: "),
]


@pytest.mark.parametrize(("claim", "place"), CLAIMS, ids=[c.__name__ for c, _ in CLAIMS])
def test_a_draft_that_would_leave_out_a_check_is_refused(
    prunes: Prunes, claim: Callable[[Report], None], place: str
):
    half = prunes(HELD)
    draft = half.draft
    claim(draft)
    half.draft = draft
    assert refused(half).startswith(place)


def test_a_dense_metric_that_hides_a_drop_is_measured_again(prunes: Prunes):
    half = prunes(HELD)
    draft = half.draft
    dense = draft.metrics.dense["accuracy"]
    assert dense.value is not None
    dense.value -= 0.05
    half.draft = draft
    assert refused(half).startswith("onnxruntime_dense_accuracy: ")


def test_gates_are_judged_by_the_process_that_verifies(prunes: Prunes):
    """The draft says that all are kept, of some that were never asked for too."""
    half = prunes(
        HELD | {"gates": {"max_drop": {"accuracy": 0.0}, "layer_sparsity": {"*": {"max": 0.1}}}}
    )
    draft = half.draft
    for check in draft.checks:
        check.status = "pass"
    draft.checks[0].name = "no_such_gate"
    for layer in draft.layers:
        layer.sparsity = 0.0
    half.draft = draft
    rejected = half.verify().rejected
    assert rejected is not None
    assert "2 gates were missed" in rejected.message
    assert "no_such_gate" not in {c["name"] for c in half.report()["checks"]}


def fewer_masks(found: Reference) -> Reference:
    return Reference(dict(list(found.masks.items())[1:]), found.outputs, found.points)


def another_shape(found: Reference) -> Reference:
    masks = {name: mask.reshape(-1) for name, mask in found.masks.items()}
    return Reference(masks, found.outputs, found.points)


def other_points(found: Reference) -> Reference:
    return Reference(found.masks, found.outputs, {"../../etc/passwd": 0})


def no_outputs(found: Reference) -> Reference:
    return Reference(found.masks, np.array(0.0), found.points)


@pytest.mark.parametrize("claim", [fewer_masks, another_shape, other_points, no_outputs])
def test_a_reference_that_does_not_fit_is_refused(
    prunes: Prunes, claim: Callable[[Reference], Reference]
):
    half = prunes(HELD)
    half.reference = claim(half.reference)
    assert refused(half).startswith("draft: ")


def test_outputs_of_fewer_samples_than_are_compared_do_not_do(prunes: Prunes):
    half = prunes(HELD)
    found = half.reference
    half.reference = Reference(found.masks, found.outputs[:1], found.points)
    assert refused(half).startswith("onnxruntime_outputs: ")


@pytest.mark.parametrize("name", [DRAFT_REPORT, REFERENCE])
@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b'{"spec": 1}', b"\xff" * 64])
def test_bytes_that_are_no_draft_are_refused(prunes: Prunes, name: str, content: bytes):
    half = prunes(HELD)
    (half.folder / DRAFT / name).write_bytes(content)
    assert refused(half).startswith("draft: ")


def test_a_reference_without_its_entries_is_refused(prunes: Prunes):
    from pruning.formats import containers

    half = prunes(HELD)
    for metadata in ({}, {"shapes": []}, {"shapes": {"fc1.weight": [1 << 40]}, "points": {}}):
        path = half.folder / DRAFT / REFERENCE
        containers.write(path, {}, {"format": "reference", "version": 1} | metadata)
        assert refused(half).startswith("draft: ")


def test_names_and_digests_of_inputs_are_those_of_the_request(prunes: Prunes):
    half = prunes(HELD)
    draft = half.draft
    draft.model.sha256, draft.data.evaluation.name = "f" * 64, "other.npz"
    half.draft = draft
    half.verify()
    report = half.report()
    assert report["model"]["sha256"] == "0" * 64
    assert report["data"]["evaluation"]["name"] == "evaluation.npz"
