"""Zip and tar files, read in place: their members look like paths, so that the rules for folders hold for them too.

Nothing is extracted, and no name in an archive becomes a path on the disk.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property, total_ordering
from pathlib import Path, PurePosixPath
from threading import Lock
from types import SimpleNamespace
from typing import IO, Any, cast

from d3hr.data.formats import START
from d3hr.data.headers import MAX_BYTES
from d3hr.errors import DataError, listed, printable

_COMPRESSED: dict[bytes, Callable[[Path, Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
"""First bytes of a compressed file -> what decompresses it."""
_MOST_EXPANSION = 100
"""How many times its own size a compressed tar may have when unpacked: images hardly shrink, and bombs a thousand times."""


@dataclass
class _File:
    """A file in an archive: its place, and its size in bytes."""

    size: int
    where: Any


class Archive:
    """The plain files of a zip or tar, and the folders that their names imply.

    Attributes:
        path: the archive.
        links: members that are links or no plain files, which are not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.links: list[str] = []
        self._lock = Lock()
        self.files: dict[str, _File] = {}
        self.folders: dict[str, set[str]] = {"": set()}
        for name, file in self._members():
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if not parts or ".." in parts or parts[0] == "/" or parts[0].endswith(":"):
                if parts:
                    raise DataError(
                        f"{path} holds names that lead out of it.", found=printable(name), hint="do not use it: it was made to do harm."
                    )
                continue
            for depth in range(1, len(parts) + (file is None)):
                self.folders.setdefault("/".join(parts[:depth]), set())
                self.folders["/".join(parts[: depth - 1])].add(parts[depth - 1])
            if file is not None:
                self.folders["/".join(parts[:-1])].add(parts[-1])
                self.files["/".join(parts)] = file

    def _members(self) -> Iterator[tuple[str, _File | None]]:
        """Yield the name of each plain file with the file, and of each folder with None."""
        raise NotImplementedError

    def _read(self, file: _File) -> bytes:
        """Return the content of a file, of as many bytes as it claims to have."""
        raise NotImplementedError

    def content(self, name: str) -> bytes:
        """Return a file; empty bytes for one that cannot be read, or is over :data:`MAX_BYTES`."""
        file = self.files.get(name)
        if file is None or file.size > MAX_BYTES:
            return b""
        try:
            with self._lock:
                return self._read(file)
        except Exception:  # the decompressors raise from many unrelated trees
            return b""

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]


class ZipArchive(Archive):
    """A zip file."""

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.path)

    def _members(self) -> Iterator[tuple[str, _File | None]]:
        infos = self._zip.infolist()
        if locked := [info.filename for info in infos if info.flag_bits & 1]:
            raise DataError(
                f"{self.path} is encrypted.",
                found=f"{len(locked)} locked file(s), such as {printable(locked[0])}",
                hint="unpack it with its password, and give the folder.",
            )
        for info in infos:
            if stat.S_ISLNK(info.external_attr >> 16):
                self.links.append(info.filename)
            else:
                yield _zip_name(info), None if info.is_dir() else _File(info.file_size, info)

    def _read(self, file: _File) -> bytes:
        with self._zip.open(file.where) as member:
            return member.read(file.size)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name of a member; macOS writes UTF-8 without the flag that says so, and Python then takes it for another encoding."""
    try:
        return info.filename if info.flag_bits & 0x800 else info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


class TarArchive(Archive):
    """A tar file; one that is compressed, which cannot be read at random, is unpacked once into a temporary file without a name."""

    @cached_property
    def _file(self) -> IO[bytes]:
        with self.path.open("rb") as file:
            start = file.read(START)
        opener = next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), None)
        tar = self.path.open("rb") if opener is None else _unpacked(self.path, cast(IO[bytes], opener(self.path, "rb")))
        weakref.finalize(self, tar.close)
        return tar

    def _members(self) -> Iterator[tuple[str, _File | None]]:
        self._file.seek(0)
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            for member in tar:
                if member.isfile() and not member.issparse():
                    yield member.name, _File(member.size, member.offset_data)
                elif member.isdir():
                    yield member.name, None
                else:
                    self.links.append(member.name)

    def _read(self, file: _File) -> bytes:
        self._file.seek(file.where)
        return self._file.read(file.size)


def _unpacked(path: Path, packed: IO[bytes]) -> IO[bytes]:
    """Return the content of a compressed file as a temporary file.

    Raises:
        DataError: it is much larger than the compressed file, or than the room on the disk.
    """
    most = min(max(MAX_BYTES, _MOST_EXPANSION * path.stat().st_size), shutil.disk_usage(tempfile.gettempdir()).free // 2)
    with closing(packed), ExitStack() as unless_whole:
        file = unless_whole.enter_context(tempfile.TemporaryFile())
        while piece := packed.read(2**20):
            if file.tell() + len(piece) > most:
                raise DataError(
                    f"{path} is too large when it is unpacked.",
                    found=f"over {most:,} bytes",
                    hint="unpack it, look at what it holds, and give the folder.",
                )
            file.write(piece)
        unless_whole.pop_all()
        return cast(IO[bytes], file)


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
        return (self / name for name in self.archive.folders[self._key])

    def walk(self) -> Iterator[tuple[Member, list[str], list[str]]]:
        """Yield each folder with the names of the folders and of the files in it; names removed from the former are not entered."""
        names = sorted(self.archive.folders.get(self._key, ()))
        folders = [name for name in names if (self / name).is_dir()]
        yield self, folders, [name for name in names if name not in folders]
        for name in folders:
            yield from (self / name).walk()

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return self._key in self.archive.folders

    def is_file(self) -> bool:
        """Return whether it is a plain file."""
        return self._key in self.archive.files

    def exists(self) -> bool:
        """Return whether it is there."""
        return self.is_dir() or self.is_file()

    def is_symlink(self) -> bool:
        """Return False: links in archives are not followed."""
        return False

    def stat(self) -> SimpleNamespace:
        """Return mode, size, and what tells folders apart."""
        file = self.archive.files.get(self._key)
        mode = stat.S_IFDIR if file is None else stat.S_IFREG
        return SimpleNamespace(st_mode=mode, st_size=file.size if file else 0, st_dev=0, st_ino=self._key)

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
    return zipfile.is_zipfile(path) or any(map(start.startswith, _COMPRESSED)) or tarfile.is_tarfile(path)


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
    if not archive.files:
        raise DataError(f"{path} holds no files.", found=listed(archive.links) or "an empty archive", hint="give another.")
    return cast(Path, Member(archive, PurePosixPath()))
