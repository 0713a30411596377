"""A criterion from a package of its own: found by entry points, nothing in Secateur is edited."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "add-a-criterion.md").read_text()

PRUNE = """
import json, sys
from pruning import catalogue
from pruning.spec import parse_spec
assert "torch" not in sys.modules, "the catalogue and the spec are torch-free"
entry = catalogue.describe("toy", catalogue.criteria()["toy"])
spec = parse_spec({"criterion": {"kind": "toy", "power": 2}, "target": {"sparsity": 0.5},
                   "schedule": {"kind": "one_shot", "recomputations": 1}})
assert spec.criterion.power == 2
import torch, pruning
torch.manual_seed(0)
net = torch.nn.Linear(6, 3)
x, y = torch.randn(50, 6), torch.randint(3, (50,))
from pruning.data.batches import ArrayData, Data
data = Data(*[ArrayData({"x": x}, y)] * 3)
outcome = pruning.prune(net, data, spec)
torch.nn.functional.cross_entropy(net(x), y).backward()
product = (net.weight.grad**2 * net.weight).abs().flatten()
expected = torch.ones(18, dtype=torch.bool)
expected[product.argsort()[:9]] = False
assert torch.equal(outcome.masks["weight"].flatten(), expected)
print(json.dumps([entry["formula"], outcome.report.sparsity.removed]))
"""


def package(folder: Path, kind: str = "toy") -> dict[str, str]:
    """The package of the how-to, as an installer leaves it; the environment that finds it."""
    blocks = [
        "\n".join(line.removeprefix("   ") for line in block.splitlines())
        for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    ]
    module, info = folder / "toy_criterion", folder / "toy_criterion-1.0.dist-info"
    module.mkdir()
    info.mkdir()
    (module / "__init__.py").write_text("")
    (module / "declaration.py").write_text(blocks[0].replace('"toy"', f'"{kind}"'))
    (module / "arithmetic.py").write_text(blocks[1])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-criterion\nVersion: 1.0\n")
    points = re.search(r"```toml\n(.*?)```", GUIDE, re.DOTALL)[1]
    points = re.sub(r'\[project.entry-points."(.*)"\]', r"[\1]", points)
    points = re.sub(r'"(toy_criterion\.\w+)".*', r"\1", points).replace("toy =", f"{kind} =")
    (info / "entry_points.txt").write_text(points)
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def run(script: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)


def test_the_criterion_of_the_how_to_is_found_described_and_prunes(tmp_path: Path):
    done = run(PRUNE, package(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["s_q = |w_q| |g_q|^p", 9]


@pytest.mark.parametrize("kind", ["magnitude", "obs"])
def test_a_package_never_replaces_a_criterion_of_secateur(tmp_path: Path, kind: str):
    done = run("from pruning import catalogue; catalogue.criteria()", package(tmp_path, kind))
    assert done.returncode != 0
    assert f"declares {kind}" in done.stderr


def test_without_the_package_the_criterion_is_unknown():
    from pruning.errors import SecateurError
    from pruning.spec import parse_spec

    with pytest.raises(SecateurError) as caught:
        parse_spec({"criterion": {"kind": "toy"}})
    assert caught.value.code == "spec_invalid"
