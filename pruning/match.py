"""Whether a dataset fits a model: names, shapes, types, labels. Torch-free."""

from collections.abc import Sequence
from math import prod
from typing import NoReturn

from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, ModelFacts, TargetFact, TensorFact
from pruning.meaning import alike


def match(dataset: DatasetFacts, model: ModelFacts, loss: str, where: str) -> None:
    """Checks one dataset against the model and the loss.

    Args:
        dataset: Facts of the dataset.
        model: Facts of the model.
        loss: As `objective.loss` has it.
        where: Place of the dataset, as in `data.calibration`; the array's name is put behind it.

    Raises:
        SecateurError: `data_names`, `data_shape`, `data_dtype`, `labels_missing` or
            `target_invalid`.
    """
    if dataset.text:
        _match_text(model, where)
    elif dataset.images is not None:
        _match_images(model, where)
    else:
        _match_arrays(dataset, model, where)
    if loss == "match_dense":
        return
    if dataset.target is None:
        if dataset.text and loss == "causal_lm":
            _scores_tokens(model.output.placed() if model.output else None)
            return
        raise SecateurError(
            "labels_missing",
            f"The loss {loss} needs labels, and the data have {_NO_LABELS[dataset.format]}.",
            where=where,
            hint=f"{_LABELS[dataset.format]}, or set objective.loss to match_dense, which needs "
            "none.",
        )
    if dataset.text and loss == "causal_lm":
        _refuse(
            "The texts have labels, and causal_lm predicts the tokens of the texts themselves.",
            f"{where}.target",
            "Leave the labels out, or set objective.loss to cross_entropy.",
        )
    if dataset.target.ignored and loss != "causal_lm":
        _refuse(
            f"Labels of -100 have no meaning for the loss {loss}.",
            f"{where}.target",
            "Leave these samples out.",
        )
    if model.output is not None:
        _CHECKS[loss](dataset.target, model.output.placed(), f"{where}.target")


def match_classes(data: dict[str, DatasetFacts]) -> None:
    """Checks that datasets whose labels are names have the same ones: class i is one thing in all.

    Args:
        data: Facts by role.

    Raises:
        SecateurError: `target_invalid`.
    """
    named = {role: d.target.names for role, d in data.items() if d.target and d.target.names}
    for role, names in named.items():
        first, wanted = next(iter(named.items()))
        if names != wanted:
            odd = sorted(set(names) ^ set(wanted))
            _refuse(
                f"The classes of the {role} data are not those of the {first} data: "
                f"{_names(odd)} {'is' if len(odd) == 1 else 'are'} in one of them alone.",
                f"data.{role}.target",
                "Classes get their numbers in the order of their names: give every dataset all "
                "of them, or name them by their numbers.",
            )


def _match_arrays(dataset: DatasetFacts, model: ModelFacts, where: str) -> None:
    arrays = {array.name: array for array in dataset.arrays}
    wanted = [tensor.name for tensor in model.inputs]
    if set(arrays) != set(wanted):
        raise SecateurError(
            "data_names",
            f"The model's inputs are {_names(wanted)}, the data hold {_names(sorted(arrays))}.",
            where=where,
            hint="Name each array after one input; the labels are called target."
            + _lacking([tensor for tensor in model.inputs if tensor.name not in arrays]),
        )
    for tensor in model.inputs:
        # JSON does not tell 1 from 1.0.
        whole = dataset.format == "jsonl" and _kind(tensor.dtype) == "float"
        _match_input(arrays[tensor.name], tensor, f"{where}.{tensor.name}", whole=whole)


def _match_text(model: ModelFacts, where: str) -> None:
    if not model.text:
        raise SecateurError(
            "data_names",
            "The data are texts, and the model came without a tokenizer; its inputs are "
            f"{_names([tensor.name for tensor in model.inputs])}.",
            where=where,
            hint="Upload the model as a Hugging Face folder with its tokenizer.json, or tokenise "
            "the texts and give the arrays as .npz.",
        )


def _match_images(model: ModelFacts, where: str) -> None:
    inputs = [f"{tensor.name!r} {_shape(tensor.shape)}" for tensor in model.inputs]
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise SecateurError(
            "data_names",
            "The data are images, and the model does not take one input of four axes; it takes "
            f"{', '.join(inputs[:10])}.",
            where=where,
            hint="Give the arrays as .npz, by the names of the inputs.",
        )
    if _kind(model.inputs[0].dtype) != "float":
        raise SecateurError(
            "data_dtype",
            f"The data are images, and the model's input is {model.inputs[0].dtype}.",
            where=where,
            hint="Give the arrays as .npz, in the type that the model takes.",
        )


def _kind(dtype: str) -> str:
    """Types of one kind are converted while loading: floats to floats, integers to integers."""
    if dtype.startswith(("float", "bfloat")):
        return "float"
    return "int" if dtype.startswith(("int", "uint")) else dtype


def _names(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:10]) + (", ..." if len(names) > 10 else "")
    return shown or "no arrays"


def _match_input(array: TensorFact, tensor: TensorFact, where: str, *, whole: bool) -> None:
    """`whole`: whole numbers will do for floating ones."""
    if not fits(array.shape, tensor):
        raise SecateurError(
            "data_shape",
            f"The array has the shape {_shape(array.shape)}; {expected(tensor)}",
            where=where,
            hint=rearranged(array.shape, tensor)
            or "The first dimension counts the samples, the others must be the model's.",
        )
    kinds = (_kind(array.dtype), _kind(tensor.dtype))
    if kinds[0] != kinds[1] and not (whole and kinds == ("int", "float")):
        raise SecateurError(
            "data_dtype",
            f"The array is {array.dtype}, the input takes {tensor.dtype}.",
            where=where,
            hint=f"Save it as {tensor.dtype}.",
        )


def fits(shape: Sequence[int | str], tensor: TensorFact) -> bool:
    """Whether an array of data is of a shape that goes into the input, samples first.

    Of an input that all samples share, its one value will do.
    """
    given = list(shape)
    return _fits(given, tensor.as_data) or (
        tensor.axis is None and not given and prod_of(tensor.shape) == 1
    )


def prod_of(shape: Sequence[int | str]) -> int | None:
    """The numbers in a shape; None where a size is open."""
    sizes = [size for size in shape if isinstance(size, int)]
    return prod(sizes) if len(sizes) == len(shape) else None


def expected(tensor: TensorFact) -> str:
    """The shape of the data that an input takes, in words that end a sentence."""
    wanted = f"the input {tensor.name!r} takes {_shape(tensor.as_data)} for N samples"
    if tensor.axis is None:
        one = ", or a single number" if prod_of(tensor.shape) == 1 else ""
        return f"{wanted}, all with the same value (the model takes one for a whole batch){one}."
    if tensor.axis == 0:
        return f"{wanted}."
    return (
        f"{wanted}, the samples first; they are moved to axis {tensor.axis} of what the model "
        f"takes, {_shape(tensor.shape)}."
    )


def rearranged(shape: Sequence[int | str], tensor: TensorFact) -> str | None:
    """What to do with an array that has the samples where the model has them."""
    axis = tensor.axis
    if not axis or len(shape) != len(tensor.shape):
        return None
    moved = [shape[axis], *(size for place, size in enumerate(shape) if place != axis)]
    if not fits(moved, tensor):
        return None
    return f"Put the samples first: numpy.moveaxis(array, {axis}, 0)."


def _lacking(tensors: list[TensorFact]) -> str:
    """What the data have to hold besides; states that a network takes are inputs too."""
    if not tensors:
        return ""
    wanted = ", ".join(f"{t.name!r} {_shape(t.as_data)} {t.dtype}" for t in tensors[:10])
    return (
        f" What is missing, N samples first: {wanted}. An initial state that the model takes is "
        "an input like any other, zeros where a sequence begins."
    )


def _fits(shape: list[int | str], wanted: list[int | str]) -> bool:
    """Same rank, and the same size wherever both are known; the first dimension is free."""
    return len(shape) == len(wanted) and all(
        a == b
        for a, b in zip(shape[1:], wanted[1:], strict=True)
        if isinstance(a, int) and isinstance(b, int)
    )


def _shape(shape: list[int | str]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _refuse(message: str, where: str, hint: str) -> NoReturn:
    raise SecateurError("target_invalid", message, where=where, hint=hint)


def _match_classes(target: TargetFact, output: TensorFact, where: str) -> None:
    if len(output.shape) != 2 or output.shape[1] == 1:
        raise SecateurError(
            "target_invalid",
            f"cross_entropy needs an output of shape [samples, classes] with 2 classes or more; "
            f"{output.name!r} is {_shape(output.shape)}.",
            where="spec.objective.loss",
            hint="Export the model so that it ends in class scores; for one logit and labels 0 and "
            "1 set objective.loss to bce, for real values to mse.",
        )
    if target.classes is None:
        _refuse(
            f"cross_entropy needs integer class labels, the target is {target.dtype}.",
            where,
            "Save the labels as int64, or set objective.loss to mse.",
        )
    if len(target.shape) != 1:
        _refuse(
            f"cross_entropy needs one label a sample, the target is {_shape(list(target.shape))}.",
            where,
            "Give the index of the class, not one-hot vectors.",
        )
    classes = output.shape[1]
    if isinstance(classes, int) and target.classes > classes:
        _refuse(
            f"The largest label is {target.classes - 1}, the model has {classes} outputs.",
            where,
            "Labels count from 0.",
        )
    if target.names and isinstance(classes, int) and len(target.names) != classes:
        _refuse(
            f"The labels are names, {len(target.names)} of them, and the model has {classes} "
            "outputs: which is which can't be told.",
            where,
            "Give all classes by name, so that their order says it, or name each by the number "
            "of its output.",
        )


def _match_values(target: TargetFact, output: TensorFact, where: str) -> None:
    if target.classes is not None:
        _refuse(
            f"mse needs real-valued targets, the target is {target.dtype}.",
            where,
            "Save the targets as float32, or set objective.loss to cross_entropy.",
        )
    if not alike(target.shape, output.shape):
        _refuse(
            f"The target is {_shape(list(target.shape))}, the output is {_shape(output.shape)}.",
            where,
            "mse compares them number by number, so the shapes must agree.",
        )


def _match_binary(target: TargetFact, output: TensorFact, where: str) -> None:
    if not alike(target.shape, output.shape):
        _refuse(
            f"The target is {_shape(list(target.shape))}, the output is {_shape(output.shape)}.",
            where,
            "bce compares them number by number, so the shapes must agree.",
        )
    if target.classes is not None and target.classes > 2:
        _refuse(
            f"bce needs targets between 0 and 1; the largest is {target.classes - 1}.",
            where,
            "Give 0, 1 or a probability for each output.",
        )


def _match_tokens(target: TargetFact, output: TensorFact, where: str) -> None:
    _scores_tokens(output)
    if target.classes is None:
        _refuse(
            f"causal_lm needs integer labels, the target is {target.dtype}.",
            where,
            "Save the tokens as int64, and -100 where they shall not count.",
        )
    if not _fits(list(target.shape), output.shape[:2]):
        _refuse(
            f"causal_lm needs one label a position, the target is {_shape(list(target.shape))}, "
            f"the output {_shape(output.shape)}.",
            where,
            "Give the tokens themselves: the shift by one position happens inside.",
        )
    vocabulary = output.shape[2]
    if isinstance(vocabulary, int) and target.classes > vocabulary:
        _refuse(
            f"The largest label is {target.classes - 1}, the model knows {vocabulary} tokens.",
            where,
            "Labels count from 0.",
        )


def _scores_tokens(output: TensorFact | None) -> None:
    if output is not None and len(output.shape) != 3:
        raise SecateurError(
            "target_invalid",
            "causal_lm needs an output of shape [samples, positions, vocabulary]; "
            f"{output.name!r} is {_shape(output.shape)}.",
            where="spec.objective.loss",
            hint="Use a model that puts out one score a token at every position.",
        )


_NO_LABELS = {
    "npz": "no array called target",
    "safetensors": "no array called target",
    "jsonl": "no field called label",
    "images": "no class folders",
    "parquet": "no column called target or label",
}
_LABELS = {
    "npz": "Add an array target with one label a sample",
    "safetensors": "Add an array target with one label a sample",
    "jsonl": "Add a field label to every line",
    "images": "Put the images into one folder a class",
    "parquet": "Add a column label with one label a row",
}
_CHECKS = {
    "cross_entropy": _match_classes,
    "mse": _match_values,
    "bce": _match_binary,
    "causal_lm": _match_tokens,
}
