"""Recovery as a part of jobs: what is refused before anything runs, and what a job hands over."""

import pytest
import torch
from torch import nn

from pruning.errors import SecateurError
from pruning.facts import ModelFacts
from pruning.job import prepare
from pruning.layers import layer_facts
from pruning.library.arrays import as_arrays
from pruning.loop import prune
from pruning.progress import Narrator
from pruning.recovery import lighten, proximal, trainer
from pruning.recovery.early_stop import split
from pruning.recovery.proximal import soften
from pruning.recovery.teacher import teacher_of
from pruning.report.schema import results_json
from pruning.schedule.step import Step
from pruning.spec import parse_spec
from pruning.spec.schedule import Proximal
from pruning.step import remove, start
from pruning.study.runs import Runs

torch.set_num_threads(1)


def network(norm=True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle = [nn.BatchNorm1d(12)] if norm else []
        layers = nn.Linear(5, 12), *middle, nn.ReLU(), nn.Linear(12, 3)
        return nn.Sequential(*layers).eval()


def pair():
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def spec(recovery, **more):
    return {
        "criterion": {"kind": "magnitude"},
        "target": {"sparsity": 0.5},
        "schedule": {"kind": "one_shot", "recomputations": 1},
        "recovery": recovery,
        "trust": {"checks": False, "bootstrap": 0, "ladder": False},
        **more,
    }


def job_of(asked):
    return prepare(network(), as_arrays(pair()), parse_spec(asked), facts=None, narrator=Narrator())


ONE_BY_ONE = ModelFacts(
    format="onnx", version="18", inputs=[], outputs=[], layers=layer_facts(network()),
    parameters=1, prunable_parameters=1, batch=1,
)  # fmt: skip

TUNE = {"kind": "fine_tune", "epochs": 2, "batch_size": 16}
REFUSED = [
    ({**TUNE, "precision": "float16"}, "spec_conflict", "spec.recovery.precision"),
    ({**TUNE, "distill": {"features": ["0", "typo*"]}}, "spec_invalid",
     "spec.recovery.distill.features"),
    ({"kind": "batch_norm"}, "spec_conflict", "spec.recovery.kind"),
]  # fmt: skip


@pytest.mark.parametrize(("recovery", "code", "where"), REFUSED, ids=lambda v: str(v)[:40])
def test_what_recovery_could_not_do_is_refused_before_pruning(recovery, code, where):
    phases = []
    with pytest.raises(SecateurError) as caught:
        prune(
            network(norm=False), pair(), spec(recovery),
            emit=lambda e: phases.append(e.phase) if e.type == "phase" else None,
        )  # fmt: skip
    assert (caught.value.code, caught.value.where) == (code, where)
    assert phases == ["checking"]


def test_the_teacher_is_the_dense_network_also_after_pruning(tmp_path):
    job = job_of(spec({**TUNE, "distill": True}))
    x = job.data.evaluation.inputs["input"]
    before = job.module(x)
    runs = Runs(job, tmp_path, several=False)
    assert runs.several is False
    state = start(job, None)
    remove(job, state, Step(48, recover=True), None)
    teacher = teacher_of(job)
    assert torch.equal(teacher(x), before)
    assert not torch.equal(job.module(x), before)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_dense_weights_are_kept_only_where_a_teacher_needs_them():
    for recovery, objective, kept in (
        (TUNE, {}, False),
        ({**TUNE, "distill": True}, {}, True),
        ({**TUNE, "distill": True}, {"objective": {"loss": "match_dense"}}, False),
        ({**TUNE, "distill": {"features": ["0"]}}, {"objective": {"loss": "match_dense"}}, True),
    ):
        job = job_of(spec(recovery, **objective))
        Runs(job, None, several=False)
        assert job.dense.kept == kept


@pytest.mark.parametrize("distance", ["squared", "kl"])
def test_distillation_without_labels_brings_the_network_closer_to_the_dense_one(distance):
    recovery = {**TUNE, "epochs": 20, "optimizer": {"kind": "adam", "lr": 0.01},
                "distill": {"features": ["0"], "feature_weight": 0.1}}  # fmt: skip
    asked = spec(recovery, objective={"loss": "match_dense", "distance": distance})
    report = prune(network(), pair()[0], asked).report
    assert report.loss.recovered < 0.5 * report.loss.pruned


def test_batch_norm_alone_recovers_without_labels_and_trains_no_weight():
    asked = spec({"kind": "batch_norm"}, objective={"loss": "match_dense"})
    without = prune(network(), pair()[0], {**asked, "recovery": {"kind": "none"}})
    outcome = prune(network(), pair()[0], asked)
    plain, found = without.module.state_dict(), outcome.module.state_dict()
    changed = {k for k in found if not torch.equal(found[k], plain[k])}
    assert changed == {"1.running_mean", "1.running_var"}
    assert outcome.report.loss.recovered is not None


def test_an_early_stop_is_told_in_the_report():
    recovery = {**TUNE, "epochs": 60, "early_stop": {"patience": 1},
                "optimizer": {"kind": "sgd", "lr": 1.0}}  # fmt: skip
    report = prune(network(), pair(), spec(recovery)).report
    told = [w.message for w in report.warnings if w.code == "recovery_note"]
    assert len(told) == 1
    assert "of 60 epochs were trained" in told[0]


def test_saliencies_put_aside_while_training_come_back_as_they_were(monkeypatch):
    whole = prune(network(), pair(), spec(TUNE))
    seen = []
    monkeypatch.setattr(lighten, "LARGE", 1)
    job = job_of(spec(TUNE))
    state = start(job, None)
    remove(job, state, Step(48, recover=True), None)
    before = state.saliency.clone()
    with lighten.lightened(job, state):
        seen.append(state.saliency.numel())
    assert seen == [0]
    assert torch.equal(state.saliency, before)
    assert results_json(prune(network(), pair(), spec(TUNE)).report) == results_json(whole.report)


@pytest.mark.parametrize("method", ["proximal", "l1"])
def test_soft_pruning_draws_the_weights_in_scope_towards_zero(method):
    tune = {**TUNE, "optimizer": {"kind": "sgd", "lr": 0.05}}
    job = job_of(spec(tune, scope={"exclude": ["3"]}))
    before = job.module[0].weight.detach().abs().sum().item()
    state = start(job, None)
    soften(job, state, Proximal(method=method, penalty=0.05, epochs=10))
    assert job.module[0].weight.detach().abs().sum().item() < 0.9 * before
    assert not job.module.training


@pytest.mark.parametrize("recovery", [{"kind": "batch_norm"}, TUNE], ids=lambda r: r["kind"])
def test_statistics_of_batches_are_refused_where_a_model_takes_one_sample_at_a_time(recovery):
    with pytest.raises(SecateurError, match="one sample at a time") as caught:
        prune(network(), pair(), spec(recovery), facts=ONE_BY_ONE)
    assert caught.value.code == "spec_conflict"
    frozen = {**TUNE, "batch_norm": "freeze"}
    assert prune(network(), pair(), spec(frozen), facts=ONE_BY_ONE).report.loss.recovered


def test_what_an_early_stop_holds_out_is_the_same_in_all_rounds_and_in_soft_pruning(monkeypatch):
    seen = []

    def watched(data, share, seed):
        index, held = split(data, share, seed)
        seen.append(index.tolist())
        return index, held

    monkeypatch.setattr(trainer, "split", watched)
    monkeypatch.setattr(proximal, "split", watched)
    tune = {**TUNE, "early_stop": True}
    prune(network(), pair(), spec(tune, schedule={"kind": "rounds", "rounds": 2}))
    prune(network(), pair(), spec(tune, schedule={"kind": "proximal", "epochs": 1}))
    assert len(seen) == 4
    assert all(index == seen[0] for index in seen)


def test_epochs_before_the_one_that_rates_go_back_to_are_not_told_as_trained():
    tune = {**TUNE, "epochs": 3, "early_stop": {"patience": 3}}
    rewind = {"kind": "rounds", "rounds": 1, "rewind": {"kind": "learning_rate", "epoch": 1}}
    report = prune(network(), pair(), spec(tune, schedule=rewind)).report
    (told,) = [w.message for w in report.warnings if w.code == "recovery_note"]
    assert "2 of 2 epochs were trained" in told
