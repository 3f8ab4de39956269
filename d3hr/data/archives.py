"""Zip and tar files, read in place: nothing is extracted, and no name in an archive becomes a path on the disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import IO, Any, ClassVar, cast

from d3hr.data.archive_index import Index
from d3hr.data.formats import START
from d3hr.data.headers import MAX_BYTES
from d3hr.errors import DataError, printable

COMPRESSED: dict[bytes, Callable[[Path, Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
"""First bytes of a compressed file -> what decompresses it."""
_ZIP_HEADER = 30
"""Bytes before the name in the local header of a file."""
_MORE_THAN_UNPACKED = 2**20
"""Bytes by which a file that does not shrink may grow when it is packed."""
_MOST_EXPANSION = 100
"""How many times its own size a compressed tar may have when unpacked: images hardly shrink, and bombs a thousand times."""


class Archive:
    """The plain files of a zip or tar, and the folders that their names imply.

    Attributes:
        path: the archive.
        links: members that are links or no plain files, which are not read.
        index: the files, each with its size in bytes and where it is.
    """

    columns: ClassVar[int]
    """Numbers that are kept of each file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.links: list[str] = []
        self._lock = Lock()
        folders: list[str] = []
        self.index = Index(self._files(folders), folders, self.columns)

    def _files(self, folders: list[str]) -> Iterator[tuple[str, Sequence[int]]]:
        """Yield the parts of the name of each file, with slashes, and its numbers; add the names of folders to ``folders``."""
        for name, numbers in self._members():
            parts = PurePosixPath(name.replace("\\", "/")).parts
            if parts and (".." in parts or parts[0] == "/" or parts[0].endswith(":")):
                raise DataError(
                    f"{self.path} holds names that lead out of it.", found=printable(name), hint="do not use it: it was made to do harm."
                )
            if not parts:
                continue
            if numbers is None:
                folders.append("/".join(parts))
            else:
                yield "/".join(parts), numbers

    def _members(self) -> Iterator[tuple[str, Sequence[int] | None]]:
        """Yield the name of each plain file with its size in bytes and what else :meth:`_read` needs, and of each folder with None."""
        raise NotImplementedError

    def _read(self, numbers: Sequence[int]) -> bytes:
        """Return the content of a file, of as many bytes as it claims to have."""
        raise NotImplementedError

    @cached_property
    def _file(self) -> IO[bytes]:
        """The archive, open."""
        file = self.path.open("rb")
        weakref.finalize(self, file.close)
        return file

    def _at(self, offset: int, size: int) -> bytes:
        """Return so many bytes of the archive, or as many as there are."""
        if size > MAX_BYTES + _MORE_THAN_UNPACKED:
            return b""
        if hasattr(os, "pread"):  # several threads can read at once
            return os.pread(self._file.fileno(), size, offset)
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)

    def content(self, name: str) -> bytes:
        """Return a file; empty bytes for one that cannot be read, or is over :data:`MAX_BYTES`."""
        numbers = self.index.numbers(name)
        if numbers is None or numbers[0] > MAX_BYTES:
            return b""
        try:
            return self._read(numbers)
        except Exception:  # the decompressors raise from many unrelated trees
            return b""

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]


class ZipArchive(Archive):
    """A zip file."""

    columns = 4

    def _members(self) -> Iterator[tuple[str, Sequence[int] | None]]:
        with zipfile.ZipFile(self.path) as file:
            infos = file.infolist()
        if locked := [info.filename for info in infos if info.flag_bits & 1]:
            raise DataError(
                f"{self.path} is encrypted.",
                found=f"{len(locked)} locked file(s), such as {printable(locked[0])}",
                hint="unpack it with its password, and give the folder.",
            )
        for info in infos:
            if stat.S_ISLNK(info.external_attr >> 16):
                self.links.append(info.filename)
            elif info.is_dir():
                yield _zip_name(info), None
            else:
                yield _zip_name(info), (info.file_size, info.header_offset, info.compress_size, info.CRC << 16 | info.compress_type)

    def _read(self, numbers: Sequence[int]) -> bytes:
        """As ``zipfile`` does, which takes as long to prepare for a small file as decoding it takes."""
        size, offset, packed_size, how = numbers
        if how & 0xFFFF not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            with zipfile.ZipFile(self.path) as file:
                return file.read(next(info for info in file.infolist() if info.header_offset == offset))
        header = self._at(offset, _ZIP_HEADER)
        skipped = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        content = self._at(offset + _ZIP_HEADER + skipped, packed_size)
        if how & 0xFFFF == zipfile.ZIP_DEFLATED:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size) if size else b""
        return content if header.startswith(b"PK\3\4") and zlib.crc32(content) == how >> 16 else b""


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name of a member; macOS writes UTF-8 without the flag that says so, and Python then takes it for another encoding."""
    try:
        return info.filename if info.flag_bits & 0x800 else info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


class TarArchive(Archive):
    """A tar file; one that is compressed, which cannot be read at random, is unpacked once into a temporary file without a name."""

    columns = 2

    @cached_property
    def _file(self) -> IO[bytes]:
        with self.path.open("rb") as file:
            start = file.read(START)
        opener = next((opener for magic, opener in COMPRESSED.items() if start.startswith(magic)), None)
        tar = self.path.open("rb") if opener is None else _unpacked(self.path, cast(IO[bytes], opener(self.path, "rb")))
        weakref.finalize(self, tar.close)
        return tar

    def _members(self) -> Iterator[tuple[str, Sequence[int] | None]]:
        self._file.seek(0)
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            while member := tar.next():
                cast(Any, tar).members.clear()  # they would all be kept
                if member.isfile() and not member.issparse():
                    yield member.name, (member.size, member.offset_data)
                elif member.isdir():
                    yield member.name, None
                else:
                    self.links.append(member.name)

    def _read(self, numbers: Sequence[int]) -> bytes:
        size, offset = numbers
        return self._at(offset, size)


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
