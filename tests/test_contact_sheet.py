import io

import torch
from PIL import Image

from d3hr.contact_sheet import MAX_CLASSES, MAX_COLUMNS, contact_sheet


def test_every_image_is_at_its_place() -> None:
    """Cells of 64 px, 4 px apart, right of 180 px of names: class 1, image 2 begins at (180 + 2 * 68, 4 + 68)."""
    rows = {
        "a": torch.zeros(3, 3, 8, 8, dtype=torch.uint8),
        "a long name that cannot fit beside the pictures 🐈": torch.zeros(3, 3, 8, 8, dtype=torch.uint8),
    }
    list(rows.values())[1][2, 0] = 255
    sheet = Image.open(io.BytesIO(contact_sheet(rows)))
    assert sheet.size == (180 + 3 * 68 + 4, 2 * 68 + 4)
    assert sheet.getpixel((180 + 2 * 68 + 1, 4 + 68 + 1)) == (255, 0, 0)
    assert sheet.getpixel((181, 5)) == (0, 0, 0)


def test_large_sets_are_cut() -> None:
    rows = {str(name): torch.zeros(30, 3, 64, 64, dtype=torch.uint8) for name in range(150)}
    assert Image.open(io.BytesIO(contact_sheet(rows))).size == (180 + MAX_COLUMNS * 68 + 4, MAX_CLASSES * 68 + 4)
