"""What lies in a folder: its folders, images and litter, in a fixed order; links are followed, and never in a circle.

A folder may hold a million files: they are listed once, one folder at a time, and not as a ``Path`` each.
"""

import mimetypes
import os
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, cast

from d3hr.data import formats
from d3hr.data.headers import start_of
from d3hr.data.members import Member
from d3hr.data.plain_folder import stamp_of
from d3hr.data.stamps import latest_change
from d3hr.errors import printable

_LITTER = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "$recycle.bin", "lost+found"})
"""Names, in lower case, of what operating systems and file servers leave in folders."""


def is_litter(name: str) -> bool:
    """Return whether a file or folder is hidden, or was left by an operating system: ``._x.jpg``, ``.DS_Store``, ``__MACOSX``, ..."""
    return name.startswith(".") or name.lower() in _LITTER


def is_image(file: Path) -> bool:
    """Return whether a file is read as an image: by the ending of its name or, failing that, by its first bytes."""
    return is_image_in(file.parents[0], file.name) if file.name else False


def is_image_in(folder: Path, name: str) -> bool:
    """Return whether the file of that name in a folder is read as an image; litter is not."""
    if is_litter(name):
        return False
    dot = name.rfind(".")
    return formats.is_image(name[dot:] if 0 < dot < len(name) - 1 else "", lambda: start_of(folder / name))


def may_be_image(file: Path) -> bool:
    """Return whether a file is an image or a picture of another kind, or has a name that says nothing."""
    kind = mimetypes.guess_type(file.name, strict=False)[0] or ""
    refused = formats.refused_kind(file.suffix) is not None or kind.startswith("image/")
    return not is_litter(file.name) and (refused or "." not in file.name or is_image(file))


def folders_in(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, sorted by name; litter is left out."""
    return sorted(folder / name for name, is_folder in _entries(folder) if is_folder and not is_litter(name))


def images_in(folder: Path) -> Iterator[Path]:
    """Yield the images directly in a folder, in any order."""
    return (folder / name for name, is_folder in _entries(folder) if not is_folder and is_image_in(folder, name))


def has_images_in(folder: Path) -> bool:
    """Return whether there are images directly in a folder."""
    return any(True for _ in images_in(folder))


def holds_images(folder: Path) -> bool:
    """Return whether there are images in a folder, or in folders below it; the first that is found ends the search."""
    entered, waiting = set[tuple[int, int]](), [folder]
    while waiting:
        here = waiting.pop()
        status = here.stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        for name, is_folder in _entries(here):
            if is_folder:
                waiting += [] if is_litter(name) else [here / name]
            elif is_image_in(here, name):
                return True
    return False


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the name of each file and folder directly in a folder, and whether it is a folder; in the order of the disk."""
    if isinstance(inside := cast(object, folder), Member):
        yield from inside.entries()
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name, _is_folder(entry)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


class Listed(NamedTuple):
    """The files directly in one folder, without litter.

    Attributes:
        folder: the folder.
        names: their names, sorted.
        stamps: the stamp of each; nothing where none were asked for.
    """

    folder: Path
    names: list[str]
    stamps: list[int]

    def images(self) -> list[bool]:
        """Return which of the files are read as images."""
        usual = {suffix for suffix in {name[name.rfind(".") :] for name in self.names} if suffix.lower() in formats.IMAGE_SUFFIXES}
        return [name[name.rfind(".") :] in usual or is_image_in(self.folder, name) for name in self.names]


def folders_below(folder: Path, litter: list[Path] | None = None, *, stamped: bool = False) -> Iterator[Listed]:
    """Yield a folder and all folders below it, each with its files; a folder that several links lead to is entered once.

    Args:
        folder: the folder.
        litter: takes the litter, a folder of it as one.
        stamped: whether to find out the stamp of each file as well.
    """
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        status = here.stat()
        key = (status.st_dev, status.st_ino)
        repeated = key in entered
        entered.add(key)
        inner, listed, left = (_listed_member if isinstance(cast(object, here), Member) else _listed)(here, stamped and not repeated)
        if litter is not None:
            litter += [here / name for name in sorted(left)]
        if not repeated:
            yield listed
            waiting += [here / name for name in sorted(inner, reverse=True)]


def _listed(folder: Path, stamped: bool) -> tuple[list[str], Listed, list[str]]:
    """Return the names of the folders in a folder on the disk, its files, and the names of litter."""
    inner, left, files = list[os.DirEntry[str]](), list[os.DirEntry[str]](), list[os.DirEntry[str]]()
    latest, place = latest_change(), os.fspath(folder)
    with os.scandir(place) as entries:
        for entry in entries:
            (left if is_litter(entry.name) else inner if _is_folder(entry) else files).append(entry)
    files.sort(key=attrgetter("name"))
    listed = Listed(folder, [file.name for file in files], [_stamp(place, file, latest) for file in files] if stamped else [])
    return [entry.name for entry in inner], listed, [entry.name for entry in left]


def _stamp(folder: str, file: os.DirEntry[str], latest: int) -> int:
    try:
        return stamp_of(f"{folder}/{file.name}", file.stat(), latest)
    except OSError:
        return 0


def _listed_member(folder: Path, stamped: bool) -> tuple[list[str], Listed, list[str]]:
    """Return what :func:`_listed` does, of a folder in an archive, whose files are known again by the archive."""
    inner, left, files = list[str](), list[str](), list[str]()
    for name, is_folder in _entries(folder):
        (left if is_litter(name) else inner if is_folder else files).append(name)
    files.sort()
    latest, stamps = latest_change(), list[int]()
    if stamped:
        inside = cast(Member, folder)
        place, status = str(inside), inside.archive.path.stat()
        stamps = [stamp_of(f"{place}/{name}", status, latest) for name in files]
    return inner, Listed(folder, files, stamps), left


def files_below(folder: Path, litter: list[Path] | None = None) -> Iterator[Path]:
    """Yield all files in and below a folder, sorted within each folder; the arguments are those of :func:`folders_below`."""
    return (listed.folder / name for listed in folders_below(folder, litter) for name in listed.names)


def litter_in(folder: Path) -> list[Path]:
    """Return the litter directly in a folder, sorted by name."""
    return sorted(folder / name for name, _ in _entries(folder) if is_litter(name))


def dangling_in(folder: Path) -> list[str]:
    """Return the links directly in a folder that lead nowhere and may have led to a folder, each with where it leads."""
    links = (link for link in sorted(_links_in(folder)) if not link.exists())
    return [
        printable(f"{link.name} -> {link.readlink()}")
        for link in links
        if not is_litter(link.name) and mimetypes.guess_type(link.name, strict=False)[0] is None
    ]


def _links_in(folder: Path) -> list[Path]:
    if isinstance(cast(object, folder), Member):
        return []
    with os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if entry.is_symlink()]
