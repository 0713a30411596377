"""Whether a dataset fits a model: names, shapes, types, labels. Torch-free."""

from typing import NoReturn

from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, ModelFacts, TargetFact, TensorFact


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
    arrays = {array.name: array for array in dataset.arrays}
    wanted = [tensor.name for tensor in model.inputs]
    if set(arrays) != set(wanted):
        raise SecateurError(
            "data_names",
            f"The model's inputs are {_names(wanted)}, the data hold {_names(sorted(arrays))}.",
            where=where,
            hint="Name each array after one input; the labels are called target.",
        )
    for tensor in model.inputs:
        _match_input(arrays[tensor.name], tensor, f"{where}.{tensor.name}")
    if loss == "match_dense":
        return
    if dataset.target is None:
        raise SecateurError(
            "labels_missing",
            f"The loss {loss} needs labels, and the data have no array called target.",
            where=where,
            hint="Add an array target with one label a sample, or set objective.loss to "
            "match_dense, which needs none.",
        )
    if dataset.target.ignored and loss != "causal_lm":
        _refuse(
            f"Labels of -100 have no meaning for the loss {loss}.",
            f"{where}.target",
            "Leave these samples out.",
        )
    if model.outputs:
        _CHECKS[loss](dataset.target, model.outputs[0], f"{where}.target")


def _kind(dtype: str) -> str:
    """Types of one kind are converted while loading: floats to floats, integers to integers."""
    if dtype.startswith(("float", "bfloat")):
        return "float"
    return "int" if dtype.startswith(("int", "uint")) else dtype


def _names(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:10]) + (", ..." if len(names) > 10 else "")
    return shown or "no arrays"


def _match_input(array: TensorFact, tensor: TensorFact, where: str) -> None:
    if not _fits(array.shape, tensor.shape):
        raise SecateurError(
            "data_shape",
            f"The array is {_shape(array.shape)}, the input wants {_shape(tensor.shape)}.",
            where=where,
            hint="The first dimension counts the samples, the others must be the model's.",
        )
    if _kind(array.dtype) != _kind(tensor.dtype):
        raise SecateurError(
            "data_dtype",
            f"The array is {array.dtype}, the input wants {tensor.dtype}.",
            where=where,
            hint=f"Save it as {tensor.dtype}.",
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
            hint="Set objective.loss to mse, or export the model so that it ends in class scores.",
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


def _match_values(target: TargetFact, output: TensorFact, where: str) -> None:
    if target.classes is not None:
        _refuse(
            f"mse needs real-valued targets, the target is {target.dtype}.",
            where,
            "Save the targets as float32, or set objective.loss to cross_entropy.",
        )
    if not _fits(list(target.shape), output.shape):
        _refuse(
            f"The target is {_shape(list(target.shape))}, the output is {_shape(output.shape)}.",
            where,
            "mse compares them number by number, so the shapes must agree.",
        )


def _match_binary(target: TargetFact, output: TensorFact, where: str) -> None:
    if not _fits(list(target.shape), output.shape):
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
    if len(output.shape) != 3:
        raise SecateurError(
            "target_invalid",
            "causal_lm needs an output of shape [samples, positions, vocabulary]; "
            f"{output.name!r} is {_shape(output.shape)}.",
            where="spec.objective.loss",
            hint="Use a model that puts out one score a token at every position.",
        )
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


_CHECKS = {
    "cross_entropy": _match_classes,
    "mse": _match_values,
    "bce": _match_binary,
    "causal_lm": _match_tokens,
}
