"""What docs/library.md shows runs, and the codes that it names are those of the code."""

import re
from pathlib import Path

import pytest
import torch

import pruning
from tests.pruning.library.networks import Net, pair

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "library.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CODES = sorted(set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", PAGE)))
NO_CODES = {"match_dense", "no_grad", "inference_mode", "weight_norm", "spectral_norm",
            "state_dict", "get_extra_state"}  # fmt: skip


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs, labels = pair()
    names = {"module": Net(), "inputs": inputs, "labels": labels, "pruning": pruning}
    exec(SNIPPETS[number], names)
    if "outcome" in names:
        assert not names["outcome"].module.training
        assert all(mask.dtype == torch.bool for mask in names["outcome"].masks.values())
    else:
        assert (tmp_path / "folder" / "architecture.json").is_file()


def test_the_call_for_a_loader_makes_a_pair():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*pair()), batch_size=7)
    (call,) = re.findall(r"`inputs, labels = (.*?)`", PAGE)
    inputs, labels = eval(call, {"torch": torch, "loader": loader})
    assert torch.equal(inputs, pair()[0])
    assert torch.equal(labels, pair()[1])


@pytest.mark.parametrize("code", [code for code in CODES if code not in NO_CODES])
def test_a_code_on_the_page_is_one_of_the_code(code):
    source = (file.read_text("utf-8") for file in (ROOT / "pruning").rglob("*.py"))
    assert any(f'"{code}"' in text for text in source)
