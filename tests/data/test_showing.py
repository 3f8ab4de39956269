import io

import torch
from PIL import Image

from d3hr.data.showing import MAX_CLASSES, MAX_COLUMNS, contact_sheet


def test_every_image_is_at_its_place() -> None:
    """Cells of 64 px, 4 px apart, right of the names: class 1, image 2 begins 2 * 68 right and 68 below class 0, image 0."""
    rows = {
        "a": torch.zeros(3, 3, 8, 8, dtype=torch.uint8),
        "a long name that cannot fit beside the pictures 🐈": torch.zeros(3, 3, 8, 8, dtype=torch.uint8),
    }
    list(rows.values())[1][2, 0] = 255
    sheet = Image.open(io.BytesIO(contact_sheet(rows)))
    left = sheet.width - 3 * 68 - 4
    assert 100 < left <= 180
    assert sheet.height == 2 * 68 + 4
    assert sheet.getpixel((left + 2 * 68 + 1, 4 + 68 + 1)) == (255, 0, 0)
    assert sheet.getpixel((left + 1, 5)) == (0, 0, 0)


def test_large_sets_are_cut() -> None:
    rows = {str(name): torch.zeros(30, 3, 64, 64, dtype=torch.uint8) for name in range(150)}
    sheet = Image.open(io.BytesIO(contact_sheet(rows)))
    assert MAX_COLUMNS * 68 < sheet.width < 30 * 68
    assert sheet.height == MAX_CLASSES * 68 + 4
