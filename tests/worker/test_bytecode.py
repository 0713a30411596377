"""Children find compiled what they import, wherever the service may write."""

import os
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from pruning.formats.huggingface.families import FAMILIES
from worker import bytecode


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of ours that nobody has compiled."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(bytecode, "ROOT", tmp_path)
    monkeypatch.setattr(bytecode, "OURS", ("ours",))
    monkeypatch.setattr(bytecode, "_SAMPLES", ())
    path = tmp_path / "ours" / "module.py"
    path.parent.mkdir()
    path.write_text("x = 1\n")
    return path


def test_what_is_missing_or_old_is_compiled_and_then_left_alone(source: Path):
    assert bytecode.write()
    compiled = Path(cache_from_source(source))
    assert compiled.is_file()
    assert not bytecode.write()
    later = compiled.stat().st_mtime + 10
    os.utime(source, (later, later))
    assert bytecode.stale() == [source]


def test_packages_beside_ours_are_imported_and_so_compiled(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As where all are installed in one folder."""
    beside = tmp_path / "beside.py"
    beside.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(bytecode, "_SAMPLES", ("beside",))
    monkeypatch.setattr(bytecode, "_IMPORT", "import beside")
    assert bytecode.write()
    assert bytecode.stale() == []


def test_what_compiles_imports_what_no_child_does_ahead():
    watched = (
        "from pruning.formats.huggingface import offline\n"
        "from worker import child\n"
        "child.AHEAD = {}\n"
        "offline.classes = lambda family: print(family.package)\n"  # half a minute in earnest
        f"{bytecode._IMPORT}"
    )
    ended = subprocess.run(
        [sys.executable, "-c", watched],
        env=os.environ | {"PYTHONPATH": str(bytecode.ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == [family.package for family in FAMILIES.values()]


def test_nothing_is_written_where_the_user_forbids_it(
    source: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert not bytecode.write()
    assert not Path(cache_from_source(source)).exists()


def test_another_package_that_was_not_compiled_is_found(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = tmp_path / "other.py"
    other.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(bytecode, "_SAMPLES", ("other", "there_is_none"))
    assert bytecode.stale() == [source, other]
