"""Images in class folders, as a .zip or .tar: `<class>/<name>.png`; without folders, no labels.

Every image is decoded by itself; what they take as an array is priced before it is made. Torch is
imported by `load` alone.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pruning.data.fit import tensors
from pruning.data.labels import TARGET, Names
from pruning.data.members import shown
from pruning.data.pixel_values import MEMBER, Recipe, recipe
from pruning.data.pixels import Picture, converted
from pruning.data.refusals import as_data, check_ratio, check_size, check_unpacked
from pruning.errors import SecateurError
from pruning.facts import DatasetFacts, ImagesFact
from pruning.formats.bundle import Bundle, open_bundle
from pruning.formats.limits import Limits
from pruning.formats.recognise import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from pruning.data.batches import ArrayData
    from pruning.formats.contract import Imported

_HINT = "Pack <class name>/<file name>.png (or jpg, jpeg, webp, bmp) into a .zip or a .tar."
_RATIO_FREE = 1 << 30  # pixels of images that take less may be as compressible as they like


def check(path: Path, limits: Limits | None = None) -> DatasetFacts:
    """Decodes every image once and says what there is; memory stays that of one image.

    Raises:
        SecateurError: `data_unreadable`, `data_too_large`, `data_empty`, `target_invalid` or
            `package_missing`, with the file in `where`.
    """
    limits = limits or Limits()
    with _opened(path, limits) as (bundle, names, classes):
        Recipe.read(bundle)
        packed = sum(bundle.sizes.values())
        unpacked = 0
        sizes: list[tuple[int, int]] = []
        for name in names:
            picture = Picture(bundle.read(name, limits.image_bytes), name, limits)
            unpacked += picture.unpacked
            check_ratio(
                unpacked, packed, limits, "The images unpack", free=_RATIO_FREE, where=shown(name)
            )
            picture.verify()
            sizes.append(picture.size)
        return DatasetFacts(
            format="images",
            samples=len(names),
            arrays=[],
            target=classes.fact(len(names)) if classes else None,
            bytes=sum(bundle.sizes[name] for name in names),
            images=ImagesFact(
                smallest=list(min(sizes, key=math.prod)),
                largest=list(max(sizes, key=math.prod)),
            ),
        )


def load(path: Path, imported: "Imported", limits: Limits | None = None) -> "ArrayData":
    """The images as one tensor in the layout of the model's input, and the folders as labels.

    Raises:
        SecateurError: As `check`, and `data_names`, `data_shape` or `data_dtype` where the model
            takes no images or the size it wants is not known.
    """
    limits = limits or Limits()
    with _opened(path, limits) as (bundle, names, classes):
        made = recipe(imported.facts, imported.preprocessing, Recipe.read(bundle))
        check_unpacked(len(names) * made.numbers * 4, limits, "The images take")
        pixels = np.empty((len(names), *made.shape), dtype=np.float32)
        for row, name in enumerate(names):
            picture = Picture(bundle.read(name, limits.image_bytes), name, limits)
            pixels[row] = made.values(converted(picture.decode(), made.channels))
        arrays = {imported.facts.inputs[0].name: pixels}
        if classes:
            indices = classes.indices()
            arrays[TARGET] = np.array([indices[name.split("/")[0]] for name in names])
    return tensors(arrays, imported.facts)


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[tuple[Bundle, list[str], Names | None]]:
    """The archive, the images' names in order, and the classes where they lie in folders."""
    check_size(path, limits)
    with as_data(), open_bundle(path, limits, limits.image_files) as bundle:
        names = [name for name in bundle.names if name != MEMBER]
        if not names:
            raise SecateurError("data_empty", "The archive holds no image.", hint=_HINT)
        total = sum(bundle.sizes.values())
        check_unpacked(total, limits, "The files unpack to")
        if path.is_file():
            check_ratio(total, path.stat().st_size, limits, "The files unpack")
        depths = {name.count("/") for name in names}
        for name in names:
            if not name.lower().endswith(IMAGE_SUFFIXES):
                raise SecateurError(
                    "data_unreadable",
                    f"The archive member {shown(name)!r} is not an image.",
                    where=shown(name),
                    hint=_HINT,
                )
        if depths not in ({0}, {1}):
            raise SecateurError(
                "data_unreadable",
                "Some images lie in folders of folders, or beside the class folders.",
                where=shown(max(names, key=lambda name: name.count("/"))),
                hint=_HINT,
            )
        if depths == {0}:
            yield bundle, names, None
            return
        classes = Names(limits)
        for name in names:
            classes.add(name.split("/")[0], shown(name))
        yield bundle, names, classes
