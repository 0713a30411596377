"""transformers, imported only from here: offline, and without kernels from the hub."""

import os
from importlib import import_module
from typing import Any

from pruning.errors import SecateurError
from pruning.formats.huggingface.families import Family

_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "USE_HUB_KERNELS": "NO",
    "TRANSFORMERS_VERBOSITY": "error",
}


def classes(family: Family) -> tuple[Any, Any]:
    """The modules of a family that define its configuration and its networks.

    Raises:
        SecateurError: `package_missing`.
    """
    # Read by the library when it is first imported.
    os.environ.update(_SETTINGS)
    at = f"transformers.models.{family.package}"
    try:
        return (
            import_module(f"{at}.configuration_{family.package}"),
            import_module(f"{at}.modeling_{family.package}"),
        )
    except ImportError as error:
        raise SecateurError(
            "package_missing",
            f"Reading Hugging Face folders needs the package transformers ({error}).",
            hint="Install secateur with what its formats need.",
        ) from error
