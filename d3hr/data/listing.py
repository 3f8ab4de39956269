"""What lies in a folder: its folders, images and litter, in a fixed order; links are followed, and never in a circle."""

import mimetypes
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

from d3hr.data import formats
from d3hr.data.archives import Member
from d3hr.data.codec import start_of
from d3hr.errors import printable

_LITTER = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "$recycle.bin", "lost+found"})
"""Names, in lower case, of what operating systems and file servers leave in folders."""


def is_litter(name: str) -> bool:
    """Return whether a file or folder is hidden, or was left by an operating system: ``._x.jpg``, ``.DS_Store``, ``__MACOSX``, ..."""
    return name.startswith(".") or name.lower() in _LITTER


def is_image(file: Path) -> bool:
    """Return whether a file is read as an image: by the ending of its name or, failing that, by its first bytes."""
    return not is_litter(file.name) and formats.is_image(file.suffix, partial(start_of, file))


def may_be_image(file: Path) -> bool:
    """Return whether a file is an image or a picture of another kind, or has a name that says nothing."""
    kind = mimetypes.guess_type(file.name, strict=False)[0] or ""
    refused = formats.refused_kind(file.suffix) is not None or kind.startswith("image/")
    return not is_litter(file.name) and (refused or "." not in file.name or is_image(file))


def folders_in(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, sorted by name; litter is left out."""
    return sorted(entry for entry in folder.iterdir() if not is_litter(entry.name) and entry.is_dir())


def images_in(folder: Path) -> list[Path]:
    """Return the images directly in a folder, sorted by name."""
    return sorted(entry for entry in folder.iterdir() if is_image(entry) and not entry.is_dir())


def holds_images(folder: Path) -> bool:
    """Return whether there are images in a folder, or in folders below it."""
    return any(is_image(file) for file in files_below(folder))


def files_below(folder: Path, litter: list[Path] | None = None) -> Iterator[Path]:
    """Yield all files in and below a folder, sorted within each folder; a folder that several links lead to is entered once.

    Litter is left out, and added to ``litter``, a folder of it as one.
    """

    def fail(error: OSError) -> None:
        raise error

    entered = set()
    inside = cast(object, folder)
    for parent, directories, files in inside.walk() if isinstance(inside, Member) else os.walk(folder, followlinks=True, onerror=fail):
        here = Path(parent) if isinstance(parent, str) else cast(Path, parent)
        if litter is not None:
            litter += [here / name for name in sorted(directories + files) if is_litter(name)]
        directories[:] = sorted(name for name in directories if not is_litter(name))
        status = here.stat()
        if (status.st_dev, status.st_ino) in entered:
            directories.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        yield from (here / file for file in sorted(files) if not is_litter(file))


def litter_in(folder: Path) -> list[Path]:
    """Return the litter directly in a folder, sorted by name."""
    return sorted(entry for entry in folder.iterdir() if is_litter(entry.name))


def dangling_in(folder: Path) -> list[str]:
    """Return the links directly in a folder that lead nowhere and may have led to a folder, each with where it leads."""
    links = (entry for entry in sorted(folder.iterdir()) if entry.is_symlink() and not entry.exists())
    return [
        printable(f"{link.name} -> {link.readlink()}")
        for link in links
        if not is_litter(link.name) and mimetypes.guess_type(link.name, strict=False)[0] is None
    ]
