"""Texts to the integer inputs of a model, by the tokenizer that came with it.

What the arrays will take, texts times the longest one's tokens, is priced before they are made.
"""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pruning.data.fit import tensors
from pruning.data.labels import IGNORED, TARGET
from pruning.data.refusals import check_unpacked
from pruning.errors import SecateurError
from pruning.facts import ModelFacts
from pruning.formats.limits import Limits

if TYPE_CHECKING:
    from pruning.data.batches import ArrayData
    from pruning.formats.contract import Imported, Tokenizer

Text = str | tuple[str, str]
"""One text, or a text and its second sentence."""

MASK = "attention_mask"
_TOKENS = "input_ids"
_PLACE = 64  # in the list of texts, alone or in a pair
_FREE = 1 << 30  # bytes of tokens that any texts may take
_ROWS = 256
_CHARACTERS = 1_000_000  # of one call, shorter texts counted as the longest, as they are padded


def text_data(
    texts: Sequence[Text], target: np.ndarray | None, imported: "Imported", limits: Limits
) -> "ArrayData":
    """Texts and labels as tensors in the order and types of the model's inputs.

    Without labels, and where the model puts out scores over its vocabulary at every position, the
    tokens themselves become the labels, -100 at padding: those of next-token prediction, whose
    shift by one happens in the loss.

    Raises:
        SecateurError: `data_names` for a model without a tokenizer, or one whose inputs the
            tokenizer does not give; `data_too_large`, `data_empty`, `data_shape`, `data_dtype`.
    """
    if imported.tokenizer is None:
        raise no_tokenizer([fact.name for fact in imported.facts.inputs])
    arrays = tokenised(texts, imported.tokenizer, limits)
    real = arrays.get(MASK)
    if real is not None and not real.any(1).all():
        raise SecateurError(
            "data_empty",
            f"The text of sample {int(real.any(1).argmin())} has no token.",
            hint="Leave out texts that say nothing.",
        )
    wanted = [fact.name for fact in imported.facts.inputs]
    if target is None:
        tokens = arrays.get(_TOKENS, arrays.get(wanted[0]))
        if tokens is not None and _scores_tokens(imported.facts, tokens):
            target = tokens if real is None else np.where(real != 0, tokens, IGNORED)
    kept = {name: array for name, array in arrays.items() if name in wanted}
    if target is not None:
        kept[TARGET] = target
    return tensors(kept, imported.facts)


def parts(text: Text | None) -> tuple[str, ...]:
    """The one text or the two that a sample has."""
    if text is None:
        return ()
    return (text,) if isinstance(text, str) else text


def held(text: str) -> int:
    """Bytes of memory that a text takes: up to four a character, and what each object costs."""
    return sys.getsizeof(text) + _PLACE


def no_tokenizer(inputs: list[str]) -> SecateurError:
    """The error for texts given to a model that came without its tokenizer."""
    return SecateurError(
        "data_names",
        "The data are texts, and the model came without a tokenizer; it takes the arrays "
        + ", ".join(repr(name) for name in inputs[:10]) + ".",
        hint="Upload the model as a Hugging Face folder with its tokenizer.json, or tokenise the "
        "texts and give the arrays as .npz.",
    )  # fmt: skip


def tokenised(
    texts: Sequence[Text], tokenizer: "Tokenizer", limits: Limits
) -> dict[str, np.ndarray]:
    """All texts as one array [texts, tokens] a name, padded to the longest by the tokenizer itself.

    The longest texts come first, some at a time, each time with the one of the most tokens so far
    among them, which makes the tokenizer pad to its length. Where a longer one turns up, what came
    before is done again behind the rest; so no block is done more than twice.

    Raises:
        SecateurError: `data_too_large` before memory is taken, `data_unreadable` where the
            tokenizer fails.
    """
    order = sorted(range(len(texts)), key=lambda index: -_length(texts[index]))
    todo = deque(_blocks(order, texts))
    done: list[list[int]] = []
    width, widest = -1, order[0]
    arrays: dict[str, np.ndarray] = {}
    while todo:
        block = todo.popleft()
        found = _call(tokenizer, [texts[index] for index in [*block, widest]])
        if (here := _width(found)) > width:
            width, widest = here, _widest(tokenizer, texts, block, here)
            _check_cost(len(texts) * width * 8 * len(found), texts, limits)
            arrays = {
                name: np.empty((len(texts), *array.shape[1:]), dtype=array.dtype)
                for name, array in found.items()
            }
            todo.extend(done)
            done = []
        for name, array in found.items():
            arrays[name][block] = array[:-1]
        done.append(block)
    return arrays


def _check_cost(cost: int, texts: Sequence[Text], limits: Limits) -> None:
    """Refuses arrays that would take too much memory, or far more than the texts account for.

    Raises:
        SecateurError: `data_too_large`.
    """
    check_unpacked(cost, limits, "The tokens of all texts take")
    characters = sum(map(_length, texts))
    if cost > max(_FREE, characters * limits.compression_ratio):
        raise SecateurError(
            "data_too_large",
            f"The tokens of all texts, each as many as the longest has, take {cost} bytes for "
            f"{characters} characters.",
            hint="Cut the longest texts, or leave them out.",
        )


def _blocks(order: list[int], texts: Sequence[Text]) -> Iterator[list[int]]:
    """Parts of the order that one call takes; the first of each is its longest."""
    at = 0
    while at < len(order):
        longest = max(1, _length(texts[order[at]]))
        rows = min(_ROWS, max(1, _CHARACTERS // longest))
        yield order[at : at + rows]
        at += rows


def _length(text: Text) -> int:
    return sum(map(len, parts(text)))


def _call(tokenizer: "Tokenizer", texts: list[Text]) -> dict[str, np.ndarray]:
    try:
        found = tokenizer(texts)
    except SecateurError:
        raise
    except Exception as error:  # the tokenizers' own errors share no class
        raise SecateurError(
            "data_unreadable",
            f"The model's tokenizer failed ({type(error).__name__}).",
            hint="Try the texts with the tokenizer where the model was made.",
        ) from error
    arrays = {name: np.asarray(array) for name, array in found.items()}
    if not arrays or any(array.shape[:1] != (len(texts),) for array in arrays.values()):
        raise SecateurError("data_unreadable", "The model's tokenizer did not give a row a text.")
    return arrays


def _width(arrays: dict[str, np.ndarray]) -> int:
    return max((array.shape[1] for array in arrays.values()), default=0)


def _widest(tokenizer: "Tokenizer", texts: Sequence[Text], block: list[int], width: int) -> int:
    """The text of the block that takes this many tokens."""
    while len(block) > 1:
        half = block[: len(block) // 2]
        found = _width(_call(tokenizer, [texts[index] for index in half]))
        block = half if found == width else block[len(block) // 2 :]
    return block[0]


def _scores_tokens(model: ModelFacts, tokens: np.ndarray) -> bool:
    """Whether the first output could be a score for each token at every position."""
    if model.output is None or len(model.output.shape) != 3 or not tokens.size:
        return False
    vocabulary = model.output.shape[2]
    return not isinstance(vocabulary, int) or int(tokens.max()) < vocabulary
