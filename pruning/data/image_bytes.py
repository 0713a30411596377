"""Image files without what is not image: the decoder never parses EXIF, profiles or texts.

EXIF alone can name thousands of tags that overlap in the same bytes, each of which a reader of it
copies; here the orientation is looked up and nothing else.
"""

import struct

_ORIENTATION = 0x0112
_SHORT = 3
_TAGS = 512
# Coded over and over, a few bytes each; progressive files have about ten.
_SCANS = 40
_EXIF = b"Exif\0\0"
_PNG = b"\x89PNG\r\n\x1a\n"
# Image data, palettes and transparency; acTL tells that there are frames.
_PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL"}
# JFIF, and Adobe's, which says how colours are coded.
_JPEG_KEPT = {0xE0, 0xEE}


def stripped(data: bytes) -> tuple[bytes, int]:
    """The file with image data alone, and its orientation by EXIF, 1 to 8 (1 is upright).

    Raises:
        ValueError: The parts do not follow on each other.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(_PNG):
        return _png(data)
    return data, 1


def orientation(exif: bytes) -> int:
    """What EXIF says of the orientation; 1 where it says nothing that can be read."""
    tiff = exif.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        if order is None:
            return 1
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(min(count, _TAGS)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _jpeg(data: bytes) -> tuple[bytes, int]:
    parts, turned, at = [data[:2]], 0, 2
    while True:
        if at + 4 > len(data) or data[at] != 0xFF:
            raise ValueError("its segments do not follow on each other")
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker == 0xDA:  # the scan: all that is left
            if data.count(b"\xff\xda", at) > _SCANS:
                raise ValueError(f"it has more than {_SCANS} scans")
            parts.append(data[at:])
            return b"".join(parts), turned or 1
        if marker == 0xD8 or marker == 0x01 or 0xD0 <= marker <= 0xD7:
            raise ValueError("a marker is out of place")
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and not turned and data.startswith(_EXIF, at + 4):
            turned = orientation(data[at + 4 : end])
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or marker in _JPEG_KEPT:
            parts.append(data[at:end])
        at = end


def _png(data: bytes) -> tuple[bytes, int]:
    parts, turned, at = [data[:8]], 0, 8
    while at + 8 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"eXIf" and not turned:
            turned = orientation(data[at + 8 : end - 4])
        if kind in _PNG_KEPT:
            parts.append(data[at:end])
        if kind == b"IEND":
            break
        at = end
    return b"".join(parts), turned or 1
