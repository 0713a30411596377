"""Models as datasets see them: facts, and what comes with an upload. No network is behind them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pruning.facts import ModelFacts, TensorFact
from pruning.formats.contract import Preprocessing, Tokenizer


@dataclass
class Model:
    """What readers of data ask of an imported model."""

    facts: ModelFacts
    tokenizer: Tokenizer | None = None
    preprocessing: Preprocessing | None = None


def model(
    inputs: dict[str, tuple[str, list[int | str]]],
    output: list[int | str] | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    preprocessing: Preprocessing | None = None,
) -> Model:
    """A model with inputs by name as (type, shape), and one output."""
    facts = ModelFacts(
        format="onnx",
        version="17",
        inputs=[TensorFact(name=n, dtype=d, shape=s) for n, (d, s) in inputs.items()],
        outputs=[TensorFact(name="y", dtype="float32", shape=output)] if output else [],
        layers=[],
        parameters=0,
        prunable_parameters=0,
        text=tokenizer is not None,
    )
    return Model(facts, tokenizer, preprocessing)


class Words:
    """One token a word, its length the token; padded on the left with 99 to the longest."""

    def __init__(self, most: int = 1_000) -> None:
        self.most = most
        self.calls = 0

    def __call__(self, texts: Sequence[str | tuple[str, str]]) -> dict[str, np.ndarray]:
        self.calls += 1
        joined = [text if isinstance(text, str) else " ".join(text) for text in texts]
        rows = [[len(word) for word in text.split()][: self.most] for text in joined]
        width = max(map(len, rows))
        gaps = [width - len(row) for row in rows]
        ids = [[99] * gap + row for gap, row in zip(gaps, rows, strict=True)]
        mask = [[0] * gap + [1] * (width - gap) for gap in gaps]
        return {"input_ids": np.array(ids), "attention_mask": np.array(mask)}
