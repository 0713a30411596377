"""`secateur unpack`: bitmask-coded weights back to dense ones, bit for bit."""

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.output import size, stdout
from secateur.errors import require


def unpack(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="OUT.npz or OUT.safetensors")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Restore the dense weights from FILE.sparse.safetensors."""
    if out.suffix not in (".npz", ".safetensors"):
        raise typer.BadParameter("OUT must end in .npz or .safetensors", param_hint="OUT")
    if out.exists() and not force:
        raise typer.BadParameter(f"{out} exists; --force overwrites it", param_hint="OUT")
    require("pruning", "numpy", "safetensors")
    import numpy as np
    from safetensors.numpy import save_file

    from pruning.formats.bitmask import decode

    tensors = decode(file)
    aside = out.with_name(f".{out.name}.part")
    if out.suffix == ".npz":
        with aside.open("wb") as target:
            np.savez(target, **tensors)  # type: ignore[arg-type]
    else:
        # safetensors writes buffers as they lie in memory.
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, aside)
    aside.replace(out)
    entries = sum(v.size for v in tensors.values())
    zeros = entries - sum(int(np.count_nonzero(v)) for v in tensors.values())
    stdout().print(
        f"{out}: {len(tensors)} tensors, {entries:,} entries, {zeros:,} of them zero, "
        f"{size(file.stat().st_size)} unpacked to {size(out.stat().st_size)}",
        soft_wrap=True,
    )
