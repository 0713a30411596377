"""`secateur unpack`: the sparse file back to the model's own files, or to dense tensors."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zipfile import ZipFile, ZipInfo

import typer

from secateur import sparse
from secateur.cli.output import size, stdout
from secateur.errors import require

if TYPE_CHECKING:
    import numpy as np


def unpack(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE")],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="[OUT]",
            help="A folder for the model's own files, or OUT.npz or OUT.safetensors for its dense "
            "tensors.",
        ),
    ] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
) -> None:
    """Restore the model from FILE.sparse.safetensors, bit for bit."""
    require("pruning", "numpy", "safetensors")
    if out.suffix in (".npz", ".safetensors") and not out.is_dir():
        _refuse_existing([out], force)
        _tensors(file, out)
    else:
        if out.exists() and not out.is_dir():
            raise typer.BadParameter(f"{out} is a file", param_hint="OUT")
        _files(file, out, force)


def _files(file: Path, folder: Path, force: bool) -> None:
    from pruning.formats.sparse.unpack import names

    targets = [folder / name for name in names(file)]
    if file.resolve() in {target.resolve() for target in targets}:
        raise typer.BadParameter(f"{file} is what is unpacked", param_hint="OUT")
    _refuse_existing(targets, force)
    restored = sparse.restore(file, folder)
    for path in restored:
        stdout().print(f"{path}: {size(path.stat().st_size)}", soft_wrap=True, markup=False)
    total = sum(path.stat().st_size for path in restored)
    stdout().print(
        f"{size(file.stat().st_size)} unpacked to {size(total)}, with the digests of the originals",
        soft_wrap=True,
    )


def _tensors(file: Path, out: Path) -> None:
    tensors = sparse.read(file)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.part")
    try:
        _save(tensors, aside, out.suffix)
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)
    entries = sum(v.size for v in tensors.values())
    zeros = entries - sum(int((v != 0).sum()) for v in tensors.values())
    stdout().print(
        f"{out}: {len(tensors)} tensors, {entries:,} entries, {zeros:,} of them zero, "
        f"{size(file.stat().st_size)} unpacked to {size(out.stat().st_size)}",
        soft_wrap=True,
        markup=False,
    )


def _save(tensors: "dict[str, np.ndarray]", path: Path, suffix: str) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    if suffix == ".npz":
        # numpy.savez takes names as keyword arguments, of which it has some of its own.
        with ZipFile(path, "w") as archive:
            for name, array in tensors.items():
                with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    else:
        # safetensors writes buffers as they lie in memory.
        save_file({name: np.ascontiguousarray(v) for name, v in tensors.items()}, path)


def _refuse_existing(targets: list[Path], force: bool) -> None:
    for path in targets:
        if path.exists() and not force:
            raise typer.BadParameter(f"{path} exists; --force overwrites it", param_hint="OUT")
