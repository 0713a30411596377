"""How large facts may be: the service reads them again at every request that names the upload."""

from typing import TypeVar

from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, ModelFacts

LONGEST_NAME = 500
"""Characters of a name of a layer, an input, an output or an array."""

MOST_LAYERS = 8_000
"""Layers of a model, those that can't be pruned counted apart."""

MOST_BYTES = 4 << 20
"""All facts as JSON."""

Facts = TypeVar("Facts", ModelFacts, DatasetFacts)


def bounded(facts: Facts) -> Facts:
    """The facts themselves, once they are known to be of a size that requests can carry.

    Raises:
        SecateurError: `model_too_large` or `data_too_large`; `model_invalid` or `data_names` for a
            name that is too long.
    """
    model = isinstance(facts, ModelFacts)
    long = next((name for name in _names(facts) if len(name) > LONGEST_NAME), None)
    if long is not None:
        raise SecateurError(
            "model_invalid" if model else "data_names",
            f"A name has {len(long):,} characters; at most {LONGEST_NAME} are taken.",
            where=f"{long[:60]}…",
            hint="Export it with shorter names.",
        )
    most = max(len(facts.layers), len(facts.others)) if isinstance(facts, ModelFacts) else 0
    if most > MOST_LAYERS:
        raise SecateurError(
            "model_too_large",
            f"The model has {most:,} tensors of weights; at most {MOST_LAYERS:,} are taken.",
            where="layers",
            hint="Keep the experts of a layer in one tensor, or upload the model in parts.",
        )
    size = len(facts.model_dump_json())
    if size > MOST_BYTES:
        raise SecateurError(
            "model_too_large" if model else "data_too_large",
            f"Names and shapes take {size:,} bytes; at most {MOST_BYTES:,} are taken.",
            hint="Export it with fewer or shorter names.",
        )
    return facts


def _names(facts: ModelFacts | DatasetFacts) -> list[str]:
    if isinstance(facts, DatasetFacts):
        return [array.name for array in facts.arrays]
    tensors = [fact.name for fact in (*facts.inputs, *facts.outputs)]
    tensors += [fact.name for fact in facts.others]
    layers = [name for fact in facts.layers for name in (fact.name, fact.weight, fact.layer or "")]
    return tensors + layers + [name for tie in facts.ties for name in tie]
