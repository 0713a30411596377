"""The children's bytecode, written once by a process that no upload has been in.

A child writes none itself, so where an installer left it out, or the packages run from their
sources, every child would compile all that it imports again: some seconds with torch.
"""

import logging
import os
import subprocess
import sys
from importlib.util import cache_from_source, find_spec
from pathlib import Path

from worker.reach import OURS, ROOT

log = logging.getLogger(__name__)

_SAMPLES = ("onnx", "pydantic", "sympy", "torch", "transformers")
"""Packages of which one file tells whether the installer compiled them."""

_SECONDS = 300.0
_IMPORT = """
import importlib
from contextlib import suppress
from worker.child import AHEAD
for names in AHEAD.values():
    for name in names:
        importlib.import_module(name)
# What no child imports ahead, since few jobs need it.
from pruning.errors import SecateurError
from pruning.formats.huggingface import families, offline
for family in families.FAMILIES.values():
    with suppress(SecateurError):
        offline.classes(family)
"""


def stale() -> list[Path]:
    """Sources whose bytecode is missing or older, all of ours and one of each other package."""
    sources = [path for name in OURS for path in (ROOT / name).rglob("*.py")]
    for name in _SAMPLES:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            sources.append(Path(spec.origin))
    return [path for path in sources if _is_stale(path)]


def _is_stale(source: Path) -> bool:
    try:
        return os.stat(cache_from_source(source)).st_mtime < source.stat().st_mtime
    except FileNotFoundError:
        return True


def write() -> bool:
    """Writes what is missing, where that is allowed and the folders can be written to.

    Returns:
        Whether anything was to be done.
    """
    found = [path for path in stale() if os.access(path.parent, os.W_OK)]
    if sys.dont_write_bytecode or not found:
        return False
    log.info("compiling what jobs import, once: %d files or more", len(found))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *_outer()])}
    ours = [str(ROOT / name) for name in OURS]
    for command in (["-m", "compileall", "-q", *ours], ["-c", _IMPORT]):
        try:
            subprocess.run(
                [sys.executable, "-P", *command], env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            log.warning("compiling took more than %g s and was given up", _SECONDS)
        if all(_is_ours(path) for path in found):
            break
    return True


def _is_ours(path: Path) -> bool:
    # Where the packages are installed, all others lie in the same folder.
    return any(ROOT / name in path.parents for name in OURS)


def _outer() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
