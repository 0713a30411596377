"""`secateur export`: architecture.json and weights from a module in the user's own code."""

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secateur.cli.output import size, stdout
from secateur.cli.samples import SAMPLES
from secateur.errors import SecateurError, require

if TYPE_CHECKING:
    from torch import Tensor, nn

_INPUT = re.compile(r"(?:(\w+)=)?(scalar|[1-9][0-9]*(?:x[1-9][0-9]*)*)(?::(\w+))?")
_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool")


def export(
    module: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:ATTRIBUTE",
            help="Where your code has the network: package.module:model, or file.py:Network. "
            "A torch.nn.Module, or what makes one without arguments.",
        ),
    ],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            metavar="[NAME=]SHAPE[:DTYPE]",
            help="An input: 1x3x224x224, or ids=1x16:int64, or rate=scalar. Once for each.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.", file_okay=False)],
    dtype: Annotated[str, typer.Option(help="Of inputs that name none.")] = "float32",
    weights: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Weights to load first: .safetensors, or a state dict as torch.save writes it.",
        ),
    ] = None,
    fixed_batch: Annotated[
        bool, typer.Option("--fixed-batch", help="Take the batch sizes of --input as fixed.")
    ] = False,
    samples: Annotated[list[str] | None, SAMPLES] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files.")] = False,
) -> None:
    """Write a network of your own code as architecture.json and model.safetensors.

    Your code is imported and run on this machine; nothing is uploaded.
    """
    from pruning.axes import parse_declared

    given = [_parsed(text, dtype) for text in inputs]
    axes = parse_declared(samples or [], "--samples")
    names = ("architecture.json", "model.safetensors")
    for path in (out / name for name in names):
        if path.exists() and not force:
            raise typer.BadParameter(f"{path} exists; --force overwrites it", param_hint="--out")
    require("pruning", "torch", "numpy", "safetensors")
    from pruning.formats.architecture.exporting import export as write

    network = _network(module)
    if weights is not None:
        _load(network, weights)
    named = [name for name, _, _ in given if name]
    if named and len(named) != len(given):
        raise typer.BadParameter("name all inputs or none", param_hint="--input")
    examples = [_example(shape, kind) for _, shape, kind in given]
    for path in write(network, examples, out, named or None, not fixed_batch, axes):
        stdout().print(f"{path}: {size(path.stat().st_size)}", soft_wrap=True)


def _parsed(text: str, dtype: str) -> tuple[str | None, list[int], str]:
    match = _INPUT.fullmatch(text)
    kind = dtype if match is None else match[3] or dtype
    if match is None or kind not in _DTYPES:
        raise typer.BadParameter(
            f"{text!r} is not like 1x3x224x224, ids=1x16:int64 or rate=scalar; types are "
            f"{', '.join(_DTYPES)}",
            param_hint="--input",
        )
    sizes = [] if match[2] == "scalar" else [int(part) for part in match[2].split("x")]
    return match[1], sizes, kind


def _example(shape: list[int], dtype: str) -> "Tensor":
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    if kind.is_floating_point:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(shape, generator=generator).to(kind)
    return torch.zeros(shape, dtype=kind)


def _network(reference: str) -> "nn.Module":
    """The module that MODULE:ATTRIBUTE names."""
    from torch import nn

    place, _, attribute = reference.rpartition(":")
    if not place or not attribute:
        raise typer.BadParameter(
            f"{reference!r} is not MODULE:ATTRIBUTE, such as models.resnet:build",
            param_hint="MODULE:ATTRIBUTE",
        )
    found: Any = _imported(place)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise SecateurError(
                "usage", f"{place} has no {attribute}.", where=reference,
                hint="Name a torch.nn.Module, or a function or class that makes one.",
            )  # fmt: skip
        found = getattr(found, part)
    if callable(found) and not isinstance(found, nn.Module):
        try:
            inspect.signature(found).bind()
        except TypeError as error:
            raise SecateurError(
                "usage", f"{attribute} can't be called without arguments: {error}",
                where=reference, hint="Write a function without arguments that makes the network.",
            ) from None  # fmt: skip
        except ValueError:  # of a builtin, which has no signature
            pass
        with _own_code(attribute):
            found = found()
    if not isinstance(found, nn.Module):
        raise SecateurError(
            "usage", f"{attribute} is a {type(found).__name__}, no torch.nn.Module.",
            where=reference, hint="Name the network, or a function or class that makes it.",
        )  # fmt: skip
    return found


def _imported(place: str) -> Any:
    # As `python -m` does, so that code beside the user's shell is found.
    sys.path.insert(0, str(Path.cwd()))
    with _own_code(place):
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place).resolve()
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise ImportError(f"{place} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module


@contextmanager
def _own_code(what: str) -> Iterator[None]:
    """Tells an exception of the user's own code from one of ours.

    Raises:
        SecateurError: `usage` with the exception and the line that raised it.
    """
    try:
        yield
    except ImportError as error:
        raise SecateurError(
            "usage", f"{what} can't be imported: {error}.", where=what,
            hint="Run this in the folder of your code, in the environment it runs in.",
        ) from None  # fmt: skip
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{Path(last.filename).name}:{last.lineno}"
        raise SecateurError(
            "usage", f"{what} raised {type(error).__name__}: {error} (at {at})", where=what,
            hint="This is code of your own; run it in Python first.",
        ) from error  # fmt: skip


def _load(network: "nn.Module", path: Path) -> None:
    from pruning.formats.architecture.fill import loaded

    try:
        network.load_state_dict(loaded(path))
    except RuntimeError as error:
        raise SecateurError(
            "model_invalid", f"{path} does not fit the network: {' '.join(str(error).split())}",
            where=str(path),
            hint="Give the state dict of this very network: module.state_dict().",
        ) from None  # fmt: skip
