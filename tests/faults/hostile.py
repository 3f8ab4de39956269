"""Names, files and values as nobody should give them, for the fuzzing of readers and commands."""

import io
import json
import struct
import zlib
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from PIL import Image


def cases(count: int) -> settings:
    """Return the settings of a test of ``count`` cases, the same in every run; of a tenth of them in the profile ``quick``."""
    return settings(
        max_examples=max(1, count * settings.default.max_examples // 100),  # type: ignore[union-attr]
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


NAMES = st.one_of(
    st.sampled_from(
        [
            "a", "A", "b", "..a", "-rf", "--out", "train", "test", "test tube", "CON", "a.png", " lead", "trail ", "tab\tname", "new\nline",
            "\x1b[2Jclear", "é", "e\u0301", "ß", "\u202egnp.exe", "%2e%2e", "[x]", "*", "null", "~", "$HOME", "`id`", "<b>", "a|b",
            "x" * 200,            "\udcff\udcfe", "class_names", "😀",
        ]
    ),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12),
)  # fmt: skip
"""Names of folders and files that a disk takes (some do not: see where they are made)."""

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 1, 2, 10**12, -(10**12), 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf")]),
    st.sampled_from(["", "../x", "/etc/passwd", "../../../canary", "a\0b", "\x1b[31m", "d3hr", "no", "x" * 3000, "\ud800"]),
    st.text(max_size=6),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=4
)
"""Whatever JSON can hold."""


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def huge_png(side: int = 60_000) -> bytes:
    """A PNG whose header alone says that it is huge."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def huge_webp(side: int = 16_000) -> bytes:
    """A WebP whose canvas is huge and whose only frame is small."""
    frame = encoded(noise(4), "webp", lossless=True)[12:]
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + struct.pack("<I", side - 1)[:3] + struct.pack("<I", side - 1)[:3]
    return b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(frame)) + b"WEBP" + canvas + frame


def noise(side: int = 6, channels: int = 3, seed: int | None = None) -> Image.Image:
    return Image.fromarray(np.random.default_rng(side if seed is None else seed).integers(0, 256, (side, side, channels), dtype=np.uint8))


def _exif(content: bytes) -> bytes:
    return encoded(noise(), "jpeg", exif=b"Exif\0\0" + content)


GOOD = [encoded(noise()), encoded(noise(5), "jpeg"), encoded(noise(7), "webp")]
ODD = [
    encoded(noise(6, 4).convert("P")),
    encoded(noise().convert("P", palette=Image.Palette.ADAPTIVE), transparency=0),
    encoded(noise().convert("P", palette=Image.Palette.ADAPTIVE), transparency=b"\0\x80\xff"),
    encoded(noise().convert("LA")),
    encoded(Image.fromarray(np.full((6, 6), 40_000, dtype=np.uint16))),
    encoded(noise(6, 4).convert("RGBA"), "webp"),
    encoded(noise().convert("CMYK"), "jpeg"),
    encoded(noise().convert("1")),
    encoded(noise(), "webp", save_all=True, append_images=[noise(), noise(6)]),
    encoded(noise(), "png", save_all=True, append_images=[noise(6)]),
    encoded(noise(), "gif", save_all=True, append_images=[noise(6)]),
    encoded(noise(), "bmp"),
    encoded(noise(), "tiff"),
    encoded(noise(), "mpo", save_all=True, append_images=[noise(6)]),
    encoded(noise(3)),
    encoded(Image.new("RGB", (300, 4))),
    _exif(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    _exif(b"MM\0*\0\0\0\x08\0\x09\x01\x12\0\x03"),
    _exif(b"II*\0\xff\xff\xff\xff"),
    huge_png(),
    huge_png(12_000),
    huge_webp(),
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"",
    b"\0" * 64,
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"RIFF\x10\0\0\0WEBPVP8 ",
]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """``whole`` with a few bits flipped, or cut, or with something behind it."""
    how = draw(st.sampled_from(["flip", "flip", "flip", "cut", "grow"]))
    if how == "cut":
        return whole[: draw(st.integers(0, len(whole)))]
    if how == "grow":
        return whole + draw(st.binary(min_size=1, max_size=20))
    content = bytearray(whole)
    for place in draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6)):
        content[place] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


FILES = st.one_of(
    st.sampled_from(GOOD),
    st.sampled_from(GOOD),
    st.sampled_from(ODD),
    st.sampled_from(GOOD + ODD[:10]).flatmap(damaged),
    st.binary(max_size=40),
)
"""Contents of files that are called images."""


@st.composite
def changed(draw: st.DrawFn, value: Any, depth: int = 0) -> Any:
    """JSON ``value`` with something in it changed, removed, added, doubled or turned round."""
    inside = isinstance(value, dict | list) and len(value) > 0 and draw(st.integers(0, 5)) > 0
    if not inside:
        return draw(VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    how = draw(st.sampled_from(["deeper"] * 6 + ["drop", "double", "turn"]))
    copy = json.loads(json.dumps(value))
    if how == "drop":
        del copy[key]
    elif how == "double" and isinstance(copy, list):
        copy.append(copy[key])
    elif how == "turn" and isinstance(copy, list):
        copy.reverse()
    else:
        copy[key] = draw(changed(value[key], depth + 1))
    return copy
