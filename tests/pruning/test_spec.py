import subprocess
import sys
from collections.abc import Iterable

import pytest
from pydantic import BaseModel

from pruning import catalogue
from pruning.catalogue import Size
from pruning.errors import CODES, SecateurError
from pruning.near_miss import near_miss
from pruning.spec import Spec, default_spec, parse_spec, places, refusal

REFUSED = [
    ({"sparsty": 0.5}, "spec_invalid", "spec.sparsty"),
    ({"target": {"sparsty": 0.5}}, "spec_invalid", "spec.target.sparsty"),
    ({"target": {"sparsity": 1.0}}, "spec_invalid", "spec.target.sparsity"),
    ({"target": {"sparsity": -0.1}}, "spec_invalid", "spec.target.sparsity"),
    ({"target": {"sparsity": float("nan")}}, "spec_invalid", "spec.target.sparsity"),
    ({"criterion": "obs"}, "spec_invalid", "spec.criterion"),
    ({"criterion": {"kind": "magic"}}, "spec_invalid", "spec.criterion"),
    ({"criterion": {"kind": "obs", "damping": -1}}, "spec_invalid", "spec.criterion.damping"),
    ({"criterion": {"kind": "obs", "block": 0}}, "spec_invalid", "spec.criterion.block"),
    ({"recovery": {"kind": "fine_tune", "optimizer": {"kind": "sgd", "lr": 0}}},
     "spec_invalid", "spec.recovery.optimizer.lr"),
    ({"allocation": {"kind": "search"}}, "spec_conflict", "spec"),
    ({"allocation": {"kind": "search"},
      "compensation": {"kind": "layerwise", "solver": "least_squares"}}, "spec_conflict", "spec"),
    ({"pattern": {"kind": "channel"}}, "not_available", "spec.pattern"),
    ({"target": {"sparsity": 0.5, "bytes": 100}}, "spec_conflict", "spec.target"),
    ({"target": {"weights": 0}}, "spec_invalid", "spec.target.weights"),
    ({"target": {"max_drop": {"metric": "cosine"}}}, "spec_conflict", "spec"),
    ({"gates": {"max_drop": {"agreement": 0.1}}}, "spec_conflict", "spec"),
    ({"gates": {"latency": {}}}, "spec_conflict", "spec.gates.latency"),
    ({"curve": {"points": [0.5, 0.4]}}, "spec_conflict", "spec.curve"),
    ({"schedule": {"kind": "proximal"}}, "spec_conflict", "spec"),
    ({"schedule": {"kind": "rounds", "rewind": {"kind": "weights"}}}, "spec_conflict", "spec"),
    ({"schedule": {"kind": "rounds", "rewind": {"kind": "weights", "epoch": 3}},
      "recovery": {"kind": "fine_tune", "epochs": 3}}, "spec_conflict", "spec"),
    ({"schedule": {"kind": "one_by_one"}, "target": {"flops": 0.5}}, "spec_conflict", "spec"),
    ({"pattern": {"kind": "nm"}, "target": {"weights": 10}}, "spec_conflict", "spec"),
    ({"criterion": {"kind": "magnitude"}, "compensation": {"kind": "obs"}},
     "spec_conflict", "spec"),
    ({"outputs": ["masks"]}, "spec_conflict", "spec"),
    ([1], "spec_invalid", "spec"),
]  # fmt: skip


def test_everything_has_a_default():
    spec = parse_spec({})
    assert spec == Spec()
    assert spec.criterion.kind == "obs"
    assert spec.compensation.kind == "obs"


@pytest.mark.parametrize("kind", ["magnitude", "obd"])
def test_compensation_follows_the_criterion_when_left_out(kind: str):
    assert parse_spec({"criterion": {"kind": kind}}).compensation.kind == "none"


@pytest.mark.parametrize(("data", "code", "where"), REFUSED)
def test_what_is_wrong_is_refused_by_place(data: object, code: str, where: str):
    with pytest.raises(SecateurError) as caught:
        parse_spec(data)
    assert (caught.value.code, caught.value.where) == (code, where)
    assert caught.value.hint or code == "spec_invalid"


def test_every_wrong_field_is_listed_and_the_near_name_offered():
    with pytest.raises(SecateurError) as caught:
        parse_spec({"targett": {}, "seed": -1})
    errors = {e["where"]: e["message"] for e in caught.value.details["errors"]}
    assert errors.keys() == {"spec.targett", "spec.seed"}
    assert "'target'" in errors["spec.targett"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"schedule": {"kind": "one_shot", "rounds": 3}},
         "The field 'rounds' belongs to kind: rounds, not to kind: one_shot."),
        ({"recovery": {"kind": "fine_tune", "optimizer": {"kind": "adam", "momentum": 0.5}}},
         "The field 'momentum' belongs to kind: sgd, not to kind: adam."),
        ({"sparsity": 0.5}, "There is no field 'sparsity' here. Did you mean 'target.sparsity'?"),
        ({"criterion": {"kind": "obss"}},
         "There is no criterion of kind 'obss'. Did you mean 'obs'? "
         "The kinds are grasp, layer_obs, magnitude, obd, obs, random, snip, synflow, "
         "taylor, wanda."),
        ({"schedule": {"kind": "xyz"}},
         "There is no schedule of kind 'xyz'. The kinds are one_shot, rounds, one_by_one, "
         "at_initialisation, proximal."),
        ({"schedule": {"kind": ["x"]}},
         "There is no schedule of kind ['x']. The kinds are one_shot, rounds, one_by_one, "
         "at_initialisation, proximal."),
        ({"criterion": {}},
         "criterion needs a kind. "
         "The kinds are grasp, layer_obs, magnitude, obd, obs, random, snip, synflow, "
         "taylor, wanda."),
        ({"criterion": "obs"}, "criterion is a mapping: write {kind: obs}."),
        ({"target": 0.5}, "target is a mapping, not 0.5."),
        ({"target": {"sparsity": 1.5}}, "1.5 is not less than 1."),
        ({"seed": -1}, "-1 is not at least 0."),
        ({"objective": {"loss": "msee"}},
         "'msee' is not 'cross_entropy', 'mse', 'bce', 'causal_lm' or 'match_dense'. "
         "Did you mean 'mse'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_plain_words_with_the_value(data: object, message: str):
    with pytest.raises(SecateurError) as caught:
        parse_spec(data)
    assert caught.value.message == message


KINDS = {place: list(found) for place, found in places().items() if "" not in found}


def nested(place: str, value: object) -> dict:
    """A spec that holds one value at a dotted place."""
    _, *names = place.split(".")
    for name in reversed(names):
        value = {name: [value] if name == "criteria" else value}
        if name in ("optimizer", "rates"):
            value["kind"] = "fine_tune"
        if name == "rewind":
            value["kind"] = "rounds"
        if name == "schedule":
            value["recovery"] = {"kind": "fine_tune"}
    return value


def test_the_unions_are_those_of_the_spec():
    assert KINDS.keys() == {
        "spec.criterion", "spec.compensation", "spec.pattern", "spec.allocation",
        "spec.schedule", "spec.recovery", "spec.recovery.optimizer", "spec.recovery.rates",
        "spec.schedule.rewind", "spec.comparison.criteria",
    }  # fmt: skip
    assert KINDS["spec.criterion"] == list(catalogue.criteria())
    assert KINDS["spec.compensation"] == list(catalogue.compensations())
    assert KINDS["spec.schedule"] == [
        "one_shot", "rounds", "one_by_one", "at_initialisation", "proximal",
    ]  # fmt: skip


@pytest.mark.parametrize("place", KINDS)
def test_every_kind_that_is_offered_is_taken_and_every_kind_is_offered(place: str):
    for kind in KINDS[place]:
        whole = nested(place, {"kind": kind})
        # Search goes over the ladders that layer-wise pruning has.
        layerwise = {"compensation": {"kind": "layerwise"}} if kind == "search" else {}
        spec = parse_spec({**whole, **layerwise})
        assert places()[place][kind] in {type(p) for p in walk(spec)}
    with pytest.raises(SecateurError) as caught:
        parse_spec(nested(place, {"kind": "?"}))
    assert caught.value.where.startswith(place)
    assert all(kind in caught.value.message for kind in KINDS[place])


def walk(part: BaseModel):
    yield part
    for name in type(part).model_fields:
        value = getattr(part, name)
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, BaseModel):
                yield from walk(inner)


@pytest.mark.parametrize("field", catalogue.PLANNED)
def test_what_is_planned_is_refused_with_what_there_is(field: str):
    for kind in catalogue.PLANNED[field]:
        with pytest.raises(SecateurError) as caught:
            parse_spec({field: {"kind": kind}})
        assert caught.value.code == "not_available"
        there = KINDS[f"spec.{field}"]
        assert kind not in there
        assert all(name in caught.value.hint for name in there)


def test_without_labels_the_default_is_layerwise_at_half_of_the_weights():
    assert default_spec(True) == {}
    spec = parse_spec(default_spec(False))
    assert (spec.compensation.kind, spec.criterion.kind) == ("layerwise", "layer_obs")
    assert (spec.objective.loss, spec.recovery.kind) == ("match_dense", "none")
    assert (spec.target.sparsity, spec.allocation.kind) == (0.5, "global")


def test_what_is_left_open_follows_from_the_pattern_and_the_compensation():
    spec = parse_spec({"pattern": {"kind": "nm", "n": 1, "m": 4}})
    assert (spec.target.sparsity, spec.allocation.kind) == (0.75, "uniform")
    assert spec.schedule_in_full.recomputations == 1
    spec = parse_spec({"compensation": {"kind": "layerwise", "damping": 0.1}})
    assert spec.criterion.damping == 0.1
    spec = parse_spec({"compensation": {"kind": "layerwise", "solver": "least_squares"}})
    assert spec.criterion.kind == "wanda"


@pytest.mark.parametrize(
    ("parts", "steps"),
    [
        ({}, 4),
        ({"criterion": {"kind": "obd"}}, 4),
        ({"criterion": {"kind": "taylor"}}, 4),
        ({"criterion": {"kind": "synflow"}}, 4),
        ({"criterion": {"kind": "magnitude"}}, 1),
        ({"criterion": {"kind": "random"}}, 1),
        ({"criterion": {"kind": "wanda"}}, 1),
        ({"criterion": {"kind": "magnitude"}, "schedule": {"kind": "one_shot"}}, 1),
        ({"compensation": {"kind": "layerwise"}}, 1),
        ({"compensation": {"kind": "layerwise"}, "schedule": {"kind": "one_shot"}}, 1),
        ({"pattern": {"kind": "nm"}, "schedule": {"kind": "one_shot"}}, 1),
        *(
            (
                {
                    "criterion": {"kind": kind},
                    "schedule": {"kind": "one_shot", "recomputations": n},
                },
                n,
            )
            for kind, n in (("magnitude", 4), ("obs", 1), ("obs", 7))
        ),
    ],
    ids=str,
)
def test_one_shot_takes_more_than_one_step_where_new_scores_help_or_the_spec_says_so(parts, steps):
    spec = parse_spec(parts)
    assert spec.schedule_in_full.recomputations == steps
    assert parse_spec(spec.model_dump(mode="json")) == spec


def test_a_completed_spec_reads_back_the_same():
    spec = parse_spec({"criterion": {"kind": "obd"}, "schedule": {"kind": "rounds"}})
    assert parse_spec(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize("group", [catalogue.criteria(), catalogue.compensations()])
def test_every_declaration_describes_and_prices_itself(group: dict):
    small = Size(weights=1_000, parameters=1_100, samples=100, outputs=10, macs=1_000)
    large = Size(weights=100_000, parameters=110_000, samples=1_000, outputs=10, macs=100_000)
    for kind, declaration in group.items():
        entry = catalogue.describe(kind, declaration)
        assert entry["kind"] == kind
        assert entry["title"]
        assert entry["formula"]
        assert entry["parameters"]["additionalProperties"] is False
        low, high = declaration().price(small), declaration().price(large)
        assert low.bytes <= high.bytes
        assert low.flops <= high.flops


def test_spec_and_catalogue_import_no_torch_and_no_numpy():
    script = (
        "import sys, pruning, pruning.spec, pruning.catalogue, pruning.facts, pruning.events,"
        "pruning.plan; print([m for m in ('torch', 'numpy', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_error_codes_are_checked_and_survive_a_round_trip():
    with pytest.raises(ValueError, match="unknown error code"):
        SecateurError("no_such_code", "x")
    error = SecateurError("data_shape", "m", where="x", hint="h", found=[1])
    assert SecateurError.from_dict(error.as_dict()).as_dict() == error.as_dict()
    assert all(400 <= status < 600 for status, _ in CODES.values())


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"layers[0]": 0.5}, "spec.layers[0]"),
        ({"0": 1}, "spec.0"),
        ({"7": {"0": {}}}, "spec.7"),
        ({"[key]": 1}, "spec.[key]"),
        ({"constrained-int": 1}, "spec.constrained-int"),
        ({"a.b": 1}, "spec.a.b"),
        ({"gates": {"layer_sparsity": {"enc.*[0]": {"mni": 0.5}}}},
         "spec.gates.layer_sparsity.enc.*[0].mni"),
        ({"gates": {"layer_sparsity": {"0": {"max": 7}}}}, "spec.gates.layer_sparsity.0.max"),
        ({"gates": {"max_drop": {"0": 0.1}}}, "spec.gates.max_drop.0"),
        ({"inputs": {"x.0": {"samples": "first"}}}, "spec.inputs.x.0.samples"),
        ({"recovery": {"kind": "fine_tune", "fine_tune": 3}}, "spec.recovery.fine_tune"),
        ({"objective": {"metrics": ["accuracy", "acuracy"]}}, "spec.objective.metrics.1"),
    ],
)  # fmt: skip
def test_a_place_is_what_the_user_wrote_whatever_the_field_is_called(data: object, where: str):
    with pytest.raises(SecateurError) as caught:
        parse_spec(data)
    assert (caught.value.code, caught.value.where) == ("spec_invalid", where)


def deep(levels: int) -> dict:
    inner: dict = {}
    for _ in range(levels):
        inner = {"a": inner}
    return inner


TOO_LARGE = {
    "unknown fields": {f"sparsity{n}": 0.5 for n in range(50_000)},
    "a list": {"scope": {"exclude": ["fc"] * 50_000}},
    "a pattern": {"scope": {"exclude": ["*a" * 50_000]}},
    "many patterns": {"scope": {"exclude": ["*a" * 100] * 1_900}},
    "features": {"recovery": {"kind": "fine_tune", "distill": {"features": ["*a"] * 1_900}}},
    "a key": {"gates": {"layer_sparsity": {"*a" * 50_000: {}}}},
    "levels": deep(900),
    "digits": {"target": {"weights": 10**4000}},
    "infinity": {"target": {"sparsity": float("inf")}},
    "nan": {"gates": {"max_drop": {"accuracy": float("nan")}}},
}


@pytest.mark.parametrize("data", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_spec_larger_than_any_that_is_meant_is_refused_at_once(data: dict):
    with pytest.raises(SecateurError) as caught:
        parse_spec(data)
    assert caught.value.code == "spec_invalid"
    assert len(caught.value.message) < 300


def test_near_names_are_looked_for_a_few_times_at_most(monkeypatch: pytest.MonkeyPatch):
    compared = 0
    real = refusal.near_miss

    def counted(given: object, known: Iterable[str]) -> str | None:
        nonlocal compared
        compared += len(list(known))
        return real(given, known)

    monkeypatch.setattr(refusal, "near_miss", counted)
    with pytest.raises(SecateurError) as caught:
        parse_spec({f"sparsity{n}": 0.5 for n in range(1_900)})
    assert "(and 1899 more)" in caught.value.message
    assert len(caught.value.details["errors"]) == 50
    assert 0 < compared < 5_000


def test_names_are_compared_only_where_that_is_cheap():
    assert near_miss("sparsty", ["sparsity", "s" * 100_000]) == "sparsity"
    assert near_miss("s" * 100_000, ["sparsity"]) is None
    assert near_miss(5, ["sparsity"]) is None
    assert near_miss("n500", (f"n{n}" for n in range(100_000))) is not None
