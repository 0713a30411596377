import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer

from pruning.spec import default_spec, parse_spec
from secateur import SecateurError
from secateur.cli.inputs import Inputs, check_target, inputs
from secateur.cli.labels import labelled


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    for name, members in {"labelled": ("x", "target"), "plain": ("x",)}.items():
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w") as archive:
            for member in members:
                archive.writestr(f"{member}.npy", b"")
    return tmp_path


def made(files: Path, spec: str | None = None, data: str = "labelled", **options: Any) -> Inputs:
    path = None
    if spec is not None:
        path = files / "spec.yaml"
        path.write_text(spec)
    return inputs(
        files / "net.onnx",
        files / f"{data}.npz",
        None,
        None,
        path,
        options.get("sparsity"),
        options.get("criterion"),
        options.get("rewind_to"),
    )


def test_labelled_data_without_options_leave_everything_to_the_spec(files: Path) -> None:
    assert made(files).spec == {}


def test_options_override_the_fields_of_the_spec(files: Path) -> None:
    text = "criterion: {kind: obs, block: 7}\nseed: 4\ntarget: {sparsity: 0.1}\n"
    assert made(files, text, sparsity=0.9).spec == {
        "criterion": {"kind": "obs", "block": 7},
        "seed": 4,
        "target": {"sparsity": 0.9},
    }
    assert made(files, text, criterion="obs").spec["criterion"] == {"kind": "obs", "block": 7}


def test_another_criterion_takes_neither_parameters_nor_compensation_of_the_old(
    files: Path,
) -> None:
    text = "criterion: {kind: obs, block: 7}\ncompensation: {kind: obs}\n"
    assert made(files, text, criterion="magnitude").spec == {"criterion": {"kind": "magnitude"}}


def test_unlabelled_data_are_pruned_layer_by_layer_unless_a_method_is_named(files: Path) -> None:
    spec = parse_spec(made(files, data="plain").spec)
    assert (spec.compensation.kind, spec.objective.loss) == ("layerwise", "match_dense")
    assert spec.target.sparsity == 0.5
    more = made(files, data="plain", sparsity=0.7).spec
    assert more == default_spec(labelled=False) | {"target": {"sparsity": 0.7}}
    assert made(files, data="plain", spec="seed: 4\n").spec == {"seed": 4}
    assert made(files, data="plain", criterion="magnitude").spec == {
        "criterion": {"kind": "magnitude"}
    }


def test_labels_are_seen_without_reading_an_array(files: Path) -> None:
    assert labelled(files / "labelled.npz")
    assert not labelled(files / "plain.npz")
    assert labelled(files / "net.onnx")


def test_an_archive_of_a_future_zip_version_is_left_to_the_reader(files: Path) -> None:
    raw = bytearray((files / "plain.npz").read_bytes())
    raw[raw.index(b"PK\x01\x02") + 6] = 99  # version needed, in the directory
    (files / "plain.npz").write_bytes(raw)
    assert labelled(files / "plain.npz")


@pytest.mark.parametrize(
    ("spec", "code", "where"),
    [
        ("criterion: {kind: obs", "spec_invalid", "spec.yaml"),
        ("- a\n- b\n", "spec_invalid", "spec.yaml"),
        ("!!python/object/apply:os.system [true]", "spec_invalid", "spec.yaml"),
        ("sparsity: 0.5\n", "spec_invalid", "spec.sparsity"),
        ("pattern: {kind: channel}\n", "not_available", "spec.pattern"),
    ],
)
def test_a_wrong_spec_is_refused_with_its_place(
    files: Path, spec: str, code: str, where: str
) -> None:
    with pytest.raises(SecateurError) as caught:
        made(files, spec)
    assert caught.value.code == code
    assert where in (caught.value.where or "")


def test_nothing_is_overwritten_without_force_and_inputs_never(files: Path) -> None:
    given = made(files)
    out = files / "out"
    check_target(given, out, force=False)
    out.mkdir()
    (out / "report.json").write_text("{}")
    with pytest.raises(typer.BadParameter, match="--force"):
        check_target(given, out, force=False)
    check_target(given, out, force=True)
    with pytest.raises(typer.BadParameter, match="input"):
        check_target(given, files, force=True)
    with pytest.raises(typer.BadParameter, match="is a file"):
        check_target(given, files / "net.onnx", force=True)


def test_the_display_outside_a_terminal_is_plain_lines() -> None:
    from rich.console import Console

    from pruning.events import MetricEvent, PhaseEvent, ProgressEvent, StateEvent, WarningEvent
    from secateur.cli.follow import JobDisplay

    text = io.StringIO()
    with JobDisplay(Console(file=text, width=40)) as display:
        for event in (
            StateEvent(state="queued"),
            StateEvent(state="running", attempt=1),
            PhaseEvent(phase="loading"),
            PhaseEvent(phase="evaluating"),
            ProgressEvent(phase="evaluating", done=1, total=2),
            MetricEvent(name="loss", stage="dense", value=0.25),
            MetricEvent(name="accuracy", stage="dense", value=0.975),
            PhaseEvent(phase="loading"),
            WarningEvent(code="c", message="careful", where="fc1"),
            WarningEvent(code="c", message="careful", where="fc1"),
        ):
            display.handle(event)
    assert text.getvalue().splitlines() == [
        "Waiting for a worker",
        "Loading",
        "Evaluating",
        "  dense: loss 0.2500 (calibration), accuracy 97.5 % (evaluation)",
        "warning fc1: careful",
    ]


def test_an_earlier_checkpoint_goes_with_the_schedules_that_use_one(files: Path) -> None:
    text = "recovery: {kind: fine_tune}\nschedule: {kind: rounds, rewind: {kind: weights}}\n"
    path = files / "earlier.onnx"
    assert made(files, text, rewind_to=path).rewind_to == path
    for spec, given in ((text, None), ("seed: 1\n", path)):
        with pytest.raises(SecateurError) as caught:
            made(files, spec, rewind_to=given)
        assert (caught.value.code, caught.value.where) == ("rewind_invalid", "rewind_to")


def test_the_earlier_checkpoint_is_never_overwritten(files: Path) -> None:
    text = "recovery: {kind: fine_tune}\nschedule: {kind: at_initialisation}\n"
    out = files / "out"
    out.mkdir()
    path = out / "net.onnx"
    path.write_bytes(b"earlier")
    with pytest.raises(typer.BadParameter, match="is an input"):
        check_target(made(files, text, rewind_to=path), out, force=True)
