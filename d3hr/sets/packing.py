"""Packing: a stored image that holds pack x pack pictures of one class as its tiles, row by row: same pixels, more pictures.

Legend: K stored images, P = K * pack^2 pictures, h = side of a picture, S = pack * h side of a stored image.
"""

from collections.abc import Sequence

from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.errors import SettingsError

MIN_TILE = 8
"""Smallest side of a packed picture, in pixels: students need as much, and less shows nothing."""


def pack(pictures: Tensor, factor: int) -> Tensor:
    """Return stored images [K, C, S, S] of pictures [P, C, h, h]: factor^2 successive ones each, as tiles row by row."""
    channels, side = pictures.shape[1], pictures.shape[-1]
    tiles = pictures.reshape(-1, factor, factor, channels, side, side)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, factor * side, factor * side)


def unpack(images: Tensor, factor: int) -> Tensor:
    """Return the pictures [P, C, h, h] of stored images [K, C, S, S], in the order in which :func:`pack` took them."""
    channels, side = images.shape[1], images.shape[-1] // factor
    tiles = images.reshape(-1, channels, factor, side, factor, side)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, side, side)


def tile_side(image_size: int, factor: int) -> int:
    """Return the side h of the pictures in stored images of ``image_size`` pixels a side; at a factor of 1 it is the same.

    Raises:
        SettingsError: the side is no multiple of the factor, or the pictures are smaller than :data:`MIN_TILE` pixels.
    """
    side, rest = divmod(image_size, factor)
    if factor > 1 and (rest or side < MIN_TILE):
        raise SettingsError(
            f"Packing needs pictures of whole pixels, at least {MIN_TILE} a side.",
            found=f"--image-size {image_size} with --pack {factor}: pictures of {image_size / factor:g} pixels",
            hint=f"use a multiple of {factor} from {MIN_TILE * factor} on as --image-size, or a smaller --pack.",
        )
    return side


def pack_chosen(images: ImageData, class_name: str, indices: Sequence[int] | Tensor, factor: int, image_size: int) -> Tensor:
    """Return stored images uint8 [K, 3, S, S], S = ``image_size``, of the real images of a class at ``indices`` [P].

    Each picture is resized once, from its own pixels to the side of a tile; at a factor of 1 a stored image is one picture.

    Args:
        images: the real images.
        class_name: the class.
        indices: P = K * factor^2 places within the class; the first is the upper left tile of the first stored image.
        factor: pictures along each side of a stored image.
        image_size: side of a stored image, in pixels.

    Raises:
        SettingsError: as :func:`tile_side`.
    """
    return pack(images.at_size(tile_side(image_size, factor)).pixels(class_name, indices), factor)


def packed_in_words(factor: int) -> str:
    """Return the storage class of a set in words; empty for a set that is not packed."""
    return f"packed {factor}x{factor}, {factor**2} images per stored image" if factor > 1 else ""
