"""all-MiniLM-L6-v2 over HTTP, end to end: its folder up, half of its weights gone, its folder back.

What a user does, by the command line, on a service started for it: upload the Hugging Face folder
and 134 texts as JSON lines, both checked; prune layer by layer without labels; download; then the
cosine of dense and pruned embeddings of 200 other texts, from the files by transformers alone. The
figure: under 120 s on 2 cores from the first byte to the last.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import minilm
from benchmarks.common import save, table
from benchmarks.service import running
from pruning.threads import cores

TEXTS, HELD_OUT = 134, 200
LIMIT = 120.0


def _write(texts: list[str], path: Path) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@torch.no_grad()
def embeddings(folder: Path, texts: list[str]) -> Tensor:
    """Mean-pooled embeddings of length 1 [texts, width], by transformers and tokenizers alone."""
    from tokenizers import Tokenizer
    from transformers import BertModel

    model = BertModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(minilm.TOKENS)
    tokenizer.no_padding()
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        states = model(ids, torch.ones_like(ids)).last_hidden_state
        found.append(torch.nn.functional.normalize(states.mean(1), dim=1))
    return torch.cat(found)


def run() -> bool:
    """Measure, print, save; whether the figure holds."""
    with tempfile.TemporaryDirectory(prefix="secateur-bench-") as name:
        return _run(Path(name))


def _run(folder: Path) -> bool:
    source = minilm.folder()
    calibration = _write(minilm.texts(TEXTS), folder / "calibration.jsonl")
    others = minilm.texts(HELD_OUT, held_out=True)
    out = folder / "out"
    with running(folder) as environment:
        begin = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "secateur", "prune", str(source), "--data"),
                *(str(calibration), "--out", str(out)),
            ],
            env=environment,
            check=True,
        )
        seconds = time.perf_counter() - begin
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    pruned = out / source.name
    dense = embeddings(source, others)
    cosine = float((dense * embeddings(pruned, others)).sum(1).mean())
    achieved = report["sparsity"]["achieved"]
    table([[seconds, achieved, cosine]], ["seconds", "sparsity", "mean cosine, held out"])
    count = cores()
    held = seconds < LIMIT
    print(f"figure (under {LIMIT:.0f} s, {count} cores) {'held' if held else 'MISSED'}")
    save(
        "minilm_http",
        {"seconds": seconds, "sparsity": achieved, "cosine": cosine, "held": held,
         "timings": report["timings"]},
    )  # fmt: skip
    return held
