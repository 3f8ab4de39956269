"""Pictures of 16 bits per value: what white is in them, and how they become pictures of 8 bits.

Cameras, microscopes and scanners write 12-bit and 8-bit values into 16 bits. Taken for 16-bit values they are all but black: 4,095 of
65,535 is a brightness of 15 of 255. The file may tell how many bits count; if none does, all pictures of a data set together show it.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

FULL = 16
"""Bits that count in a real 16-bit picture."""
_SAMPLE_FORMAT, _LARGEST_SAMPLE, _BITS, _PHOTOMETRIC = 339, 341, 258, 262
"""Tags of TIFF."""
_SHOWN_BITS = (8, 12)
"""Bits that a data set may show by itself; a real 16-bit picture whose brightest value is a sixteenth of white is black in any case."""
_Values = NDArray[np.uint16]


def refusal(image: Image.Image) -> str:
    """Return why the values of a picture are no brightness; empty if they are."""
    formats = image.tag_v2.get(_SAMPLE_FORMAT, (1,)) if isinstance(image, TiffImageFile) else (1,)
    if image.mode == "F" or 3 in formats:
        return "a TIFF of floating-point numbers, of which no value is white: save it with 8 or 16 bits, scaled to what matters"
    if image.mode == "I" and isinstance(image, TiffImageFile) and max(image.tag_v2.get(_BITS, (1,))) > FULL:
        return "a TIFF of 32-bit numbers, of which no value is white: save it with 8 or 16 bits, scaled to what matters"
    return ""


def deep_values(image: Image.Image, low_bytes: Callable[[], Image.Image]) -> _Values:
    """Return the values [H, W] or [H, W, channels] of a 16-bit picture.

    Args:
        image: the picture, decoded by Pillow, which keeps 16 bits of grey pictures and the upper 8 bits of others.
        low_bytes: decodes the same picture by :func:`swap_bytes`; called only for colours that are all in the darker half.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        values: _Values = np.asarray(image).clip(0, 2**FULL - 1).astype(np.uint16)
        whitest_is_zero = isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0
        return np.bitwise_not(values) if whitest_is_zero else values
    high: _Values = np.left_shift(np.asarray(image), 8, dtype=np.uint16)
    return high if high.max() >= 2 ** (FULL - 1) else np.bitwise_or(high, np.asarray(low_bytes()))


def is_deep(image: Image.Image) -> bool:
    """Return whether a picture that is not yet decoded has 16 bits per value: in grey, or in colours, of which Pillow keeps the upper 8."""
    if image.mode in ("RGB", "RGBA") and isinstance(image, ImageFile) and image.tile:
        return _raw_mode(image)[:-1] in ("RGB;16", "RGBA;16")
    return image.mode == "I" or image.mode.startswith("I;16")


def swap_bytes(image: ImageFile) -> None:
    """Let Pillow keep the lower 8 bits of colours of 16 in place of the upper ones, when it decodes ``image``."""
    native, other = ("L", "B") if sys.byteorder == "little" else ("B", "L")
    swapped = {"B": "L", "L": "B", "N": other if native == "L" else "L"}
    raw_mode = _raw_mode(image)
    raw_mode = raw_mode[:-1] + swapped[raw_mode[-1]]
    image.tile = [tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *_args(tile)[1:])) for tile in image.tile]


def stated_bits(image: Image.Image, blob: bytes, values: _Values) -> int | None:
    """Return how many bits count as a file tells, by SMaxSampleValue of TIFF or the chunk sBIT of PNG; None if it does not.

    By the PNG specification, values with sBIT are scaled to the whole range, and their lower bits are zero in the dark; some writers
    leave them unscaled. Source: W3C PNG, 11.3.2.4.
    """
    if isinstance(image, TiffImageFile):
        largest = max((int(value) for value in np.ravel(image.tag_v2.get(_LARGEST_SAMPLE, ()))), default=0)
        return max(8, largest.bit_length()) if 0 < largest < 2**FULL else None
    significant = _significant_bits(blob) if isinstance(image, PngImageFile) else None
    if significant is None or not 8 <= significant < FULL:
        return None
    scaled = values.max() >= 2**significant or not (values & (2 ** (FULL - significant) - 1)).any()
    return FULL if scaled else significant


def shown_bits(peak: int) -> int:
    """Return how many bits count in pictures whose largest value is ``peak``: 8, 12 or 16."""
    return next((bits for bits in _SHOWN_BITS if peak < 2**bits), FULL)


def to_eight_bits(values: _Values, bits: int) -> Image.Image:
    """Return a picture of 8 bits per value, by its upper bits, from values of which ``bits`` count; larger ones become white."""
    return Image.fromarray((values >> (bits - 8)).clip(0, 255).astype(np.uint8))


def _raw_mode(image: ImageFile) -> str:
    args = image.tile[0].args
    return args if isinstance(args, str) else str((args or ("",))[0])


def _args(tile: Any) -> tuple[Any, ...]:
    return tuple(tile.args)


def _significant_bits(png: bytes) -> int | None:
    """Return the largest number in the chunk sBIT of a PNG file, which comes before the pixels; None if there is none."""
    place = 8
    while place + 8 <= len(png):
        length, kind = int.from_bytes(png[place : place + 4], "big"), png[place + 4 : place + 8]
        if kind == b"IDAT":
            return None
        if kind == b"sBIT":
            return max(png[place + 8 : place + 8 + length], default=None)
        place += 12 + length
    return None
