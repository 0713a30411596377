"""Shell patterns over names of layers, many at once."""

import time
from fnmatch import fnmatchcase
from itertools import product

import pytest

from pruning.errors import SecateurError
from pruning.facts import LayerFact
from pruning.name_patterns import NamePatterns
from pruning.scope import check_patterns, choose
from pruning.spec import Scope

NAMES = ["fc", "fc1", "encoder.0.fc", "encoder.10.fc", "a[0]", "a0", "", "x.weight", "Fc", "a\nb"]
PATTERNS = ["fc", "fc*", "*.fc", "encoder.?.*", "a[0]", "a[[]0]", "[!f]*", "*", "?", "F*", "a?b"]


def layers(count: int, name: str = "layer.{}") -> list[LayerFact]:
    return [
        LayerFact(name=name.format(n), kind="Linear", weight=f"w{n}", shape=[4, 4], parameters=16,
                  dtype="float32")
        for n in range(count)
    ]  # fmt: skip


def test_they_match_as_fnmatch_does_one_by_one_and_together():
    for pattern, name in product(PATTERNS, NAMES):
        assert bool(NamePatterns([pattern]).match([name])) is fnmatchcase(name, pattern)
    together = NamePatterns(["fc", "a[[]0]", "encoder.?.*"])
    matched = [name for name in NAMES if together.match([name])]
    assert matched == ["fc", "encoder.0.fc", "a[0]"]
    assert not NamePatterns([]).match(NAMES)


def test_the_first_that_matches_nothing_is_found():
    assert NamePatterns(["fc", "x*", "none*", "nine"]).first_unmatched(NAMES) == "none*"
    assert NamePatterns(["fc", "nine"]).first_unmatched(NAMES) == "nine"
    assert NamePatterns(PATTERNS[:4]).first_unmatched(NAMES) is None


def test_more_comparisons_than_a_request_may_ask_for_are_refused_before_any():
    many = layers(10_000)
    check_patterns(tuple(f"layer.{n}" for n in range(256)), many)
    with pytest.raises(SecateurError) as caught:
        check_patterns(tuple(f"*{n}*" for n in range(256)), many)
    assert (caught.value.code, caught.value.where) == ("spec_invalid", "spec.scope.exclude")


def test_patterns_that_take_long_to_compile_are_refused_before_they_are_compiled():
    started = time.process_time()
    with pytest.raises(SecateurError) as caught:
        check_patterns(tuple(f"*{'a*' * 100}{n}" for n in range(256)), layers(2))
    assert time.process_time() - started < 0.2  # it took 1.5 s
    assert caught.value.code == "spec_invalid"


def test_a_hundred_patterns_exclude_as_one_by_one():
    many = layers(1_000)
    patterns = tuple(f"*.{n}?" for n in range(1, 100))
    kept = choose(many, Scope(exclude=patterns)).kept
    assert [x.name for x in kept] == [
        x.name for x in many if not any(fnmatchcase(x.name, p) for p in patterns)
    ]
