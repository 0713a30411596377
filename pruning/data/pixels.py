"""One image file to pixels: formats, sizes and modes checked from the header before decoding."""

import io
import struct
from typing import TYPE_CHECKING

import numpy as np

from pruning.data.image_bytes import orientation, stripped
from pruning.data.members import plain, shown
from pruning.errors import SecateurError
from pruning.formats.limits import Limits

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_HINT = "Images are read as PNG, JPEG, WebP or BMP; convert the file, or leave it out."
# EXIF's orientation to what makes the image upright, as names of PIL.Image.Transpose.
_UPRIGHT = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
            6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip


class Picture:
    """An image whose header has been read and checked, and that is not decoded yet.

    Args:
        data: The whole file.
        name: Of the file.
        limits: `image_pixels` bounds width times height, as the header has them.

    Attributes:
        size: (height, width) when upright.
        unpacked: Bytes of its pixels, one a channel.

    Raises:
        SecateurError: `data_unreadable`, `data_too_large`, `package_missing`.
    """

    def __init__(self, data: bytes, name: str, limits: Limits) -> None:
        image_module = pillow()
        self._name = name
        _check_webp(data, name, limits)
        try:
            data, self._turned = stripped(data)
            image = image_module.open(io.BytesIO(data), formats=FORMATS)
            (width, height), frames = image.size, getattr(image, "is_animated", False)
        except image_module.DecompressionBombError:
            raise _too_many_pixels(name, limits) from None
        except image_module.UnidentifiedImageError:
            raise _damaged(name, ValueError("it is in none of these formats")) from None
        except Exception as error:  # parsers of headers fail in many ways on noise
            raise _damaged(name, error) from None
        _check_pixels((width, height), name, limits)
        if frames:
            raise _animated(name)
        if image.format == "WEBP" and isinstance(image.info.get("exif"), bytes):
            self._turned = orientation(image.info["exif"])
        self._image = image
        self.size = (width, height) if self._turned >= 5 else (height, width)
        self.unpacked = width * height * len(image.getbands())

    def verify(self) -> None:
        """Decodes all of the file, JPEG to an eighth of its size, which is faster.

        Raises:
            SecateurError: `data_unreadable` for a file that is damaged or ends early.
        """
        self._load(small=True)

    def decode(self) -> "Image":
        """The image, upright.

        Raises:
            SecateurError: As `verify`.
        """
        self._load(small=False)
        from PIL import Image

        turn = _UPRIGHT.get(self._turned)
        return self._image.transpose(Image.Transpose[turn]) if turn else self._image

    def _load(self, *, small: bool) -> None:
        try:
            if small:
                self._image.draft(None, (1, 1))
            self._image.load()
        except Exception as error:  # decoders fail in many ways on damaged files
            raise _damaged(self._name, error) from None


def converted(image: "Image", channels: int) -> "Image":
    """The image in grey (1 channel) or RGB (3); transparency is dropped, 16 bits become 8."""
    if image.mode.startswith("I"):
        from PIL import Image

        values = np.asarray(image)
        image = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def pillow():  # type: ignore[no-untyped-def]
    """The module PIL.Image.

    Raises:
        SecateurError: `package_missing`.
    """
    try:
        from PIL import Image
    except ImportError:
        raise SecateurError(
            "package_missing",
            "Images need the package pillow, which is not installed here.",
            hint="pip install pillow, or give the images as arrays in an .npz file.",
        ) from None
    return Image


def _check_webp(data: bytes, name: str, limits: Limits) -> None:
    """The size of a WebP's canvas; Pillow's opening already takes memory for all of it."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return
    kind = data[12:16]
    if kind == b"VP8X":
        if data[20] & 0x02:
            raise _animated(name)
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (v & 0x3FFF for v in struct.unpack_from("<HH", data, 26))
    _check_pixels((width, height), name, limits)


def _check_pixels(size: tuple[int, int], name: str, limits: Limits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise _damaged(name, ValueError("it has no pixel"))
    if width * height > limits.image_pixels:
        raise _too_many_pixels(name, limits, f": it is {width} x {height}")


def _too_many_pixels(name: str, limits: Limits, found: str = "") -> SecateurError:
    return SecateurError(
        "data_too_large",
        f"The image {shown(name)} has more than {limits.image_pixels} pixels{found}.",
        where=shown(name),
        hint="Scale it down to about the size that the model reads.",
    )


def _animated(name: str) -> SecateurError:
    return SecateurError(
        "data_unreadable", f"The image {shown(name)} is animated.", where=shown(name), hint=_HINT
    )


def _damaged(name: str, error: BaseException) -> SecateurError:
    return SecateurError(
        "data_unreadable",
        f"The image {shown(name)} can't be read ({plain(error)}).",
        where=shown(name),
        hint=_HINT,
    )
