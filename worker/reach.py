"""What of the machine a child needs: its interpreter and libraries, a few devices, nothing else.

Not the home folders, not the service's data, not /etc but for a few files, of /proc itself alone.
"""

import glob
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("pruning", "worker")  # packages that the child imports

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_ETC = (
    *("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/mime.types"),
    # OpenSSL's own settings, which hash functions ask for; keys lie elsewhere.
    *("/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies"),
)
_MACHINE = (
    *("/sys/devices/system", "/sys/kernel/mm/transparent_hugepage"),
    # Where runtimes look for accelerators, also to find none.
    *("/sys/bus/pci/devices", "/sys/class/drm", "/sys/devices/pci*"),
)
_PROC = (
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems"),
    *("/proc/version", "/proc/sys/vm", "/proc/sys/kernel/random"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_GPU_NODES = ("/dev/nvidia*", "/dev/dri", "/dev/kfd", "/dev/dxg")
_GPU_MACHINE = ("/sys",)
_GPU_PROC = ("/proc/driver/nvidia", "/proc/devices", "/proc/modules")
_GPU_SYSTEM = ("/etc/nvidia", "/opt/rocm*", "/run/opengl-driver")


@dataclass(frozen=True)
class Reach:
    """Absolute paths that exist, parents before what lies in them.

    Args:
        files: Files and folders to read, and to start programs from.
        proc: The same within /proc, which a process namespace has anew.
        listed: Folders whose names may be read, and no more.
        devices: Device nodes, or folders of them, to read and write.
        gpu: The devices among them that are GPUs.
    """

    files: tuple[str, ...]
    proc: tuple[str, ...]
    listed: tuple[str, ...]
    devices: tuple[str, ...]
    gpu: tuple[str, ...]

    def shows(self, path: Path) -> str | None:
        """The readable folder that a path lies in, or is; None if it stays hidden."""
        real = Path(os.path.realpath(path))
        for folder in self.files:
            if real.is_relative_to(os.path.realpath(folder)):
                return folder
        return None


def gpu_nodes() -> tuple[str, ...]:
    """Device nodes of GPUs on this machine."""
    return tuple(sorted(path for pattern in _GPU_NODES for path in glob.glob(pattern)))


def reach(
    program: Sequence[str],
    *,
    gpu: bool,
    more: Sequence[str] = (),
    outer: Mapping[str, str] | None = None,
) -> Reach:
    """What a child that runs `program` may read.

    Args:
        program: Absolute path and arguments; files among them may be read.
        gpu: Whether GPUs pass through.
        more: Further paths of the operator's choice.
        outer: Where LD_LIBRARY_PATH is read.
    """
    outer = os.environ if outer is None else outer
    nodes = gpu_nodes() if gpu else ()
    machine = _GPU_MACHINE if nodes else _MACHINE
    patterns = (*_SYSTEM, *_ETC, *machine, *(_GPU_SYSTEM if nodes else ()))
    files = [
        *(path for pattern in patterns for path in glob.glob(pattern)),
        *_interpreter(),
        *(str(ROOT / name) for name in OURS),
        *(p for argument in program if os.path.isfile(argument) for p in _hops(argument)),
        *(p for p in outer.get("LD_LIBRARY_PATH", "").split(os.pathsep) if os.path.isabs(p)),
        *more,
    ]
    proc = [*_PROC, *(_GPU_PROC if nodes else ())]
    return Reach(
        files=_tidy(files),
        proc=_tidy(proc),
        listed=_tidy([str(ROOT)]),
        devices=_tidy([*_DEVICES, *nodes]),
        gpu=nodes,
    )


def _interpreter() -> list[str]:
    """Where Python and its packages lie; not all of a prefix, which may be somebody's home."""
    found = [sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib")]
    for prefix in {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}:
        found += [os.path.join(prefix, n) for n in ("bin", "lib", "lib64", "pyvenv.cfg")]
    return found + _hops(sys.executable)


def _hops(path: str) -> list[str]:
    """A file, and each link on the way to what it really is."""
    found = [os.path.abspath(path)]
    while os.path.islink(path) and len(found) < 40:
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        found.append(path)
    return [*found, os.path.realpath(path)]


def _tidy(paths: Sequence[str]) -> tuple[str, ...]:
    """Those that exist, once each and without those in a folder that is named too."""
    kept: list[str] = []
    for path in sorted({os.path.normpath(p) for p in paths if os.path.exists(p)}):
        inside = any(path.startswith(k.rstrip("/") + "/") for k in kept)
        if not inside:
            kept.append(path)
    return tuple(kept)
