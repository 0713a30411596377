"""The first sentence, the figures beside it, and what the page admits not to know."""

import shlex

import pytest

from benchmarks.report_example import example
from pruning.catalogue.compensation.none import NoCompensation
from pruning.catalogue.criteria.magnitude import Magnitude
from pruning.report import study_words, verdict, words
from pruning.report.doubts import doubts
from pruning.report.html import report_html
from pruning.report.provenance import reproduce
from pruning.report.schema import Check, Report, Round
from pruning.report.study import Drop, Stopped
from pruning.report.trust import Bootstrap
from pruning.spec import Gates


@pytest.fixture
def report() -> Report:
    return example(4)


def about(report: Report) -> set[str]:
    return {doubt.about for doubt in doubts(report)}


def test_the_verdict_is_one_sentence_with_cost_interval_gain_and_gates(report):
    text = verdict.verdict(report)
    assert text.count(".\u0020") == 0
    assert text.endswith(".")
    share = words.share(report.sparsity.achieved)
    assert f"; Optimal Brain Surgeon removed {share} of the weights; " in text
    assert "accuracy fell by 0.60 points to 93.6 % (95 % interval 0.00 to 1.20)" in text
    smaller = report.sizes.uploaded_bytes / report.sizes.sparse_bytes
    assert f"the sparse file is {words.ratio(smaller)} times smaller" in text
    assert "no difference in the time of a run was found (ratio 0.99" in text
    assert text.endswith("; its gate holds.")


def test_a_rise_is_told_with_the_interval_of_the_rise(report):
    report.metrics.drops = {"accuracy": Drop(value=-0.01, low=-0.03, high=0.01, samples=100)}
    report.search = None
    assert "accuracy rose by 1.00 points" in verdict.verdict(report)
    assert "interval -1.00 to 3.00" in verdict.verdict(report)


def test_a_metric_that_is_no_share_is_not_told_in_points(report):
    report.metrics.drops["cosine"] = Drop(value=0.012, low=0.01, high=0.014, samples=100)
    assert verdict.verdict(report).startswith("The limit was met as measured: accuracy fell")
    assert "cosine fell by 0.01200 (95 % interval 0.01000 to 0.01400)" in verdict.verdict(report)


@pytest.mark.parametrize(
    ("ratio", "low", "high", "said"),
    [
        (0.7, 0.66, 0.75, "takes 0.70 of the upload's time"),
        (1.0, 0.98, 1.02, "no difference in the time"),
        (1.4, 1.3, 1.5, "1.40 times as long"),
        (2.26, 0.7, 5.1, "whether a run is faster can't be told"),
        (2.26, None, None, "whether a run is faster can't be told"),
    ],
)
def test_time_is_only_called_won_or_lost_where_its_interval_says_so(report, ratio, low, high, said):
    report.latency.ratio = ratio
    report.latency.ratio_low, report.latency.ratio_high = low, high
    assert said in verdict.verdict(report)
    (fact,) = [f for f in verdict.facts(report) if f.name == "time of a run"]
    assert ("×" in fact.value) == (ratio in (0.7, 1.4))
    assert ("Faster or slower" in about(report)) == (ratio == 2.26)


def test_a_searched_drop_is_said_to_be_kept_first_and_by_which_interval(report):
    report.spec = report.spec.model_copy(update={"gates": Gates()})
    report.checks = [c for c in report.checks if c.group != "gate"]
    report.search.allowed = 0.02
    text = verdict.verdict(report)
    assert text.startswith(
        "The limit was met: accuracy fell by 0.60 points to 93.6 % (95 % interval 0.00 "
        "to 1.20), with at most 2 points allowed; "
    )
    assert "gate" not in text
    report.search.allowed = 0.01
    text = verdict.verdict(report)
    assert text.startswith("The limit was met as measured: ")
    assert "and the interval reaches beyond it" in text
    assert verdict.outcome(report).tone == "good"
    report.search.allowed = 0.001
    assert verdict.verdict(report).startswith("The limit was missed: ")
    assert verdict.outcome(report).tone == "warn"
    report.metrics.drops = {}
    assert verdict.verdict(report).startswith("Whether the limit was met is not known")


@pytest.mark.parametrize(
    ("value", "low", "tone"),
    [(0.05, 0.03, "warn"), (0.02, 0.001, "warn"), (0.019, 0.01, "good"), (0.05, -0.01, "good"),
     (0.12, -0.05, "warn"), (-0.2, -0.3, "good")],
)  # fmt: skip
def test_a_large_drop_without_a_limit_is_no_plain_success(report, value, low, tone):
    report.search = None
    report.spec = report.spec.model_copy(update={"gates": Gates()})
    report.metrics.drops = {"accuracy": Drop(value=value, low=low, high=0.3, samples=100)}
    found = verdict.outcome(report)
    assert (found.state, found.tone) == ("succeeded", tone)
    head = report_html(report).partition("<nav")[0]
    assert ("A large drop: accuracy fell by" in head) == (tone == "warn")
    assert ('<h1 class="warn">' in head) == (tone == "warn")
    # The limit is the user's own where there is one.
    report.spec = report.spec.model_copy(update={"gates": Gates(max_drop={"accuracy": 0.5})})
    assert verdict.outcome(report).tone == "good"


def test_a_loss_that_rose_much_is_no_plain_success_where_nothing_else_was_measured(report):
    report.metrics.dense = report.metrics.pruned = report.metrics.drops = {}
    report.metrics.recovered = report.search = None
    report.loss.dense, report.loss.recovered = 0.1, 0.109
    assert verdict.outcome(report).tone == "good"
    report.loss.recovered = 0.15
    assert verdict.outcome(report).tone == "warn"


def test_magnitude_that_was_as_good_stands_beside_the_verdict(report):
    assert verdict.beside(report) == [study_words.magnitude(report)]
    head = report_html(report).partition("<nav")[0]
    assert "with recovery magnitude was as good" in head
    for found in report.comparison.differences:
        found.verdict = "better"
    assert verdict.beside(report) == []


def test_a_missed_gate_on_the_latency_counts_although_it_is_not_among_the_checks(report):
    report.latency.gate = Check(
        name="latency.ratio", group="gate", status="fail", value=0.99, threshold=0.8,
        message="The delivered file takes too long.",
    )  # fmt: skip
    assert "1 of 2 gates is missed" in verdict.verdict(report)
    page = report_html(report)
    assert "rejected by a gate" in page
    assert "The delivered file takes too long." in page.partition("<section")[0]


def test_without_metrics_the_verdict_is_about_the_loss(report):
    report.metrics.dense = report.metrics.pruned = report.metrics.drops = {}
    report.metrics.recovered = None
    report.search = None
    assert "the calibration loss went from 0.1873 to 0.2032" in verdict.verdict(report)
    assert "No metric" in about(report)


def test_metrics_without_pairs_are_told_by_their_values(report):
    report.search, report.metrics.drops = None, {}
    assert "accuracy went from 94.2 % to 93.6 %" in verdict.verdict(report)


def test_four_times_the_samples_halve_the_interval(report):
    text = next(d.text for d in doubts(report) if d.about == "The drop of accuracy")
    assert "About 8,000 samples would halve the interval." in text


def test_a_gate_inside_the_interval_is_doubtful_and_one_outside_is_not(report):
    assert "The gate on accuracy" in about(report)
    report.metrics.drops["accuracy"].high = 0.008
    assert "The gate on accuracy" not in about(report)


@pytest.mark.parametrize("role", ["calibration", "training"])
def test_evaluation_data_that_were_seen_are_named(report, role):
    assert "Evaluation data seen before" not in about(report)
    getattr(report.data, role).sha256 = report.data.evaluation.sha256
    text = next(d.text for d in doubts(report) if d.about == "Evaluation data seen before")
    assert role in text


def test_a_curve_is_only_called_not_monotone_beyond_its_intervals(report):
    assert "A curve that is not monotone" not in about(report)
    lesser = report.curve[1].drops["accuracy"]
    lesser.value, lesser.low, lesser.high = 0.2, 0.19, 0.21
    assert "A curve that is not monotone" in about(report)


def test_what_is_not_known_goes_with_its_section(report):
    before = about(report)
    assert {
        "The search's end",
        "Which weights were removed",
        "Predictions at this sparsity",
    } <= before
    assert {"Few calibration samples", "Layers fitted to few inputs"} <= before
    report.search = report.trust = report.latency = report.comparison = None
    report.layer_outputs, report.curvature.samples = [], 10_000
    gone = before - about(report)
    assert gone == {
        "The search's end", "The target", "Which weights were removed",
        "Predictions at this sparsity",
        "Few calibration samples", "Layers fitted to few inputs",
    }  # fmt: skip


def test_a_loss_without_prediction_is_said_once(report):
    report.rounds = [Round.model_validate(r.model_dump()) for r in report.rounds]
    report.rounds[0].not_predicted = "No derivative."
    assert "Nothing predicted" in about(report)
    assert "Predictions at this sparsity" not in about(report)


def test_which_weights_go_is_no_doubt_where_no_sample_decides_it(report):
    report.trust.bootstrap = Bootstrap(resamples=0, reason="it would take longer than the job")
    assert "Which weights were removed" in about(report)
    report.spec = report.spec.model_copy(
        update={"criterion": Magnitude(), "compensation": NoCompensation()}
    )
    assert "Which weights were removed" not in about(report)


def test_noisy_times_and_few_seeds_are_admitted(report):
    assert not {"Noisy times", "The comparison of criteria"} & about(report)
    report.latency.pruned.q75 = 0.003
    for compared in report.comparison.criteria:
        compared.runs = compared.runs[:1]
    assert {"Noisy times", "The comparison of criteria"} <= about(report)


def test_the_page_says_when_magnitude_was_as_good(report):
    text = study_words.magnitude(report)
    assert "Without recovery Optimal Brain Surgeon was better than magnitude" in text
    assert "with recovery magnitude was as good" in text
    for found in report.comparison.differences:
        found.verdict = "as_good"
    assert study_words.magnitude(report).startswith(
        "Without recovery and with recovery magnitude was as good: "
    )
    assert "cheaper choice" in text
    report.comparison.differences = [
        d for d in report.comparison.differences if d.verdict == "better"
    ]
    assert "cheaper choice" not in study_words.magnitude(report)
    report.comparison.differences = []
    assert study_words.magnitude(report) == ""


def test_why_rounds_ended_early_is_told_with_both_drops(report):
    report.stopped = Stopped(round=3, rounds=8, metric="accuracy", drop=0.0234, allowed=0.02)
    text = study_words.stopped(report)
    assert "3 of 8 were kept" in text
    assert "2.34 points" in text
    assert "the 2 points allowed" in text
    assert words.unbroken(text) in report_html(report)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.5e-7, "0.150 µs"), (3.21e-4, "321 µs"), (0.0012, "1.20 ms"),
     (12.0, "12.0 s"), (188.2, "3 min 8 s")],
)  # fmt: skip
def test_durations_are_read_in_their_own_unit(value, shown):
    assert words.seconds(value) == shown


def test_numbers_far_from_one_have_an_exponent():
    assert words.number(-1.4825e-7) == "-1.48e-7"
    assert words.number(1e-5) == "1.00e-5"
    assert words.number(0.12345) == "0.1235"
    assert words.points("accuracy", -1e-9) == "0.00 points"


def test_the_command_that_runs_it_again_survives_any_name(report):
    report.model.name = "it's; rm -rf $HOME.onnx"
    report.data.training.source = "calibration"
    assert shlex.split(reproduce(report)) == [
        "secateur", "reproduce", "--local", "manifest.json", "--model", "it's; rm -rf $HOME.onnx",
        "--data", "calibration.npz", "--evaluation", "evaluation.npz",
    ]  # fmt: skip
    report.model.format = "module"
    assert "secateur" not in reproduce(report)
