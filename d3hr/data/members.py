"""Files and folders in archives, which look like paths, so that the rules for folders hold for them too."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import total_ordering
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import IO, cast

from d3hr.data.archives import COMPRESSED, Archive, TarArchive, ZipArchive
from d3hr.data.formats import START
from d3hr.errors import DataError, listed


@total_ordering
@dataclass(frozen=True)
class Member:
    """A file or folder in an archive, with the methods of ``pathlib.Path`` that reading a folder needs."""

    archive: Archive
    path: PurePosixPath

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.name

    @property
    def suffix(self) -> str:
        """The ending of the name, with the dot."""
        return self.path.suffix

    @property
    def parents(self) -> tuple[Member, ...]:
        """The folders it lies in, the innermost first."""
        return tuple(Member(self.archive, parent) for parent in self.path.parents)

    @property
    def _key(self) -> str:
        return "" if self.path == PurePosixPath() else str(self.path)

    def __truediv__(self, other: str | PurePosixPath) -> Member:
        return Member(self.archive, self.path / other)

    def __lt__(self, other: Member) -> bool:
        return self.path < other.path

    def __str__(self) -> str:
        return str(self.archive.path / self.path)

    def relative_to(self, other: Member) -> PurePosixPath:
        """Return the path from another member."""
        return self.path.relative_to(other.path)

    def iterdir(self) -> Iterator[Member]:
        """Yield what lies directly in a folder."""
        return (self / name for name, _ in self.entries())

    def entries(self) -> Iterator[tuple[str, bool]]:
        """Yield the name of each file and folder directly in a folder, and whether it is a folder."""
        return self.archive.index.entries(self._key)

    def content_below(self, name: str) -> bytes:
        """Return the content of a file in or below a folder, by its path in it."""
        return self.archive.content(f"{self._key}/{name}" if self._key else name)

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return self.archive.index.is_folder(self._key)

    def is_file(self) -> bool:
        """Return whether it is a plain file."""
        return self.archive.index.numbers(self._key) is not None

    def exists(self) -> bool:
        """Return whether it is there."""
        return self.is_dir() or self.is_file()

    def is_symlink(self) -> bool:
        """Return False: links in archives are not followed."""
        return False

    def stat(self) -> SimpleNamespace:
        """Return mode, size, and what tells folders apart."""
        numbers = self.archive.index.numbers(self._key)
        mode = stat.S_IFDIR if numbers is None else stat.S_IFREG
        return SimpleNamespace(st_mode=mode, st_size=numbers[0] if numbers else 0, st_dev=0, st_ino=self._key)

    def read_bytes(self) -> bytes:
        """Return the content of a file."""
        return self.archive.content(self._key)

    def open(self, mode: str) -> IO[bytes]:
        """Open a file for reading its bytes."""
        assert mode == "rb"
        return io.BytesIO(self.read_bytes())


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip or tar file, or one that is compressed and may hold a tar."""
    with path.open("rb") as file:
        start = file.read(START)
    return zipfile.is_zipfile(path) or any(map(start.startswith, COMPRESSED)) or tarfile.is_tarfile(path)


def open_archive(path: Path) -> Path:
    """Return the inside of a zip or tar file, in the place of a folder: a :class:`Member`.

    Raises:
        DataError: it is damaged, encrypted, made to do harm, or no archive.
    """
    try:
        archive = ZipArchive(path) if zipfile.is_zipfile(path) else TarArchive(path)
    except (DataError, MemoryError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # the decompressors raise from many unrelated trees
        raise DataError(
            f"{path} is damaged.", found=f"{type(error).__name__}: {error}", hint="fetch it again, or make it again from its folder."
        ) from error
    if not len(archive.index):
        raise DataError(f"{path} holds no files.", found=listed(archive.links) or "an empty archive", hint="give another.")
    return cast(Path, Member(archive, PurePosixPath()))
