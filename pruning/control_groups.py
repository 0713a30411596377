"""Where the kernel keeps what bounds this process: its control group's folder, and those around it.

Versions 1 and 2, as far as they can be seen. Torch-free.
"""

from pathlib import Path


def folders(controller: str, root: Path = Path("/")) -> list[Path]:
    """Folders of this process's control groups, of both versions, and of the groups around them.

    Args:
        controller: `cpu`, `memory` or the like: which of version 1's file systems is meant.
        root: Where `proc` and the control groups' file systems are looked for.

    Returns:
        Its own group's folder before those around it.
    """
    found: list[Path] = []
    for version, top, mount in _mounts(controller, root):
        own = _own_group(controller, root, version)
        if own is None:
            continue
        # In a container, the mount may show the group of the container as its top.
        inside = own.removeprefix(top.rstrip("/")) if own.startswith(top) else "/"
        folder = mount / inside.strip("/")
        if not folder.is_dir():
            folder = mount
        found.append(folder)
        while folder != mount:
            folder = folder.parent
            found.append(folder)
    return found


def lines(path: Path) -> list[str]:
    """Lines of one of their files, none where it can't be read."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _mounts(controller: str, root: Path) -> list[tuple[int, str, Path]]:
    """Version, group shown at the top, and folder, of each file system of control groups."""
    found = []
    for line in lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) < 5 or len(kinds) < 3:
            continue
        folder = root / _unescaped(fields[4]).lstrip("/")
        if kinds[0] == "cgroup2":
            found.append((2, _unescaped(fields[3]), folder))
        elif kinds[0] == "cgroup" and controller in kinds[2].split(","):
            found.append((1, _unescaped(fields[3]), folder))
    return found


def _own_group(controller: str, root: Path, version: int) -> str | None:
    for line in lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        of_version_2 = number == "0" and not controllers
        if of_version_2 if version == 2 else controller in controllers.split(","):
            return path
    return None


def _unescaped(field: str) -> str:
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
