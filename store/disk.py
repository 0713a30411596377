"""What a power cut leaves of files and folders: they are there for good once they are synced."""

import os
from pathlib import Path


def make_folder(folder: Path, mode: int) -> None:
    """Makes a folder and those above it that are missing, each synced into the one above it."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=mode, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
