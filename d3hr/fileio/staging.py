"""Output folders that appear whole or not at all.

A folder is built as ``<out>.partial`` and renamed to ``<out>`` when it is complete; until then the partial folder holds finished files,
from which the same run resumes. The key of the run (settings, fingerprints) is kept in its ``run.json``. One run at a time works in a
folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import BaseFileLock
from torch import Tensor

from d3hr.errors import DamagedFile, OutputError, listed
from d3hr.fileio.atomic import load_if_valid, read_json, read_tensors, write_bytes, write_json, write_tensors
from d3hr.fileio.checksums import SUMS, digest_of, folder_checksums
from d3hr.fileio.locking import LOCK, lock_folder, locked, remove_lock, unlock_folder
from d3hr.fileio.names import with_a_name
from d3hr.formatting import flat
from d3hr.progress import SILENT, Progress

_KEY_FILE, PARTIAL = "run.json", ".partial"
_SHOWN = 40
"""Most characters of a setting that a message shows."""


class StagedFolder:
    """The folder ``out``, under construction or finished by an earlier run of the same key; inside ``with``, no other run works on it.

    Args:
        leading: whether this process, of several that work together, is the one that locks the folder and commits it.

    Attributes:
        path: the folder to write into.
        finished: whether ``out`` already is the finished folder of this key; then nothing is left to do.
        resumed: whether ``path`` may hold finished files of an earlier, interrupted run.

    Raises:
        OutputError: ``out`` holds something else, ``path`` holds an unfinished run of another key, or another run works there.
        DamagedFile: the ``run.json`` of ``out`` or ``path`` is damaged.
    """

    def __init__(self, out: str | Path, key: dict[str, Any], *, leading: bool = True) -> None:
        self.out = with_a_name(Path(out))
        self.path = self.out.with_name(self.out.name + PARTIAL)
        self.resumed = False
        self._lock: BaseFileLock | None = None
        self._key = json.loads(json.dumps(key))
        before = _read_key(self.out)
        self.finished = before == self._key
        if self.finished:
            remove_lock(self.out)
            return
        if before is not None:
            raise _of_another_run(self.out, before, self._key)
        require_free(self.out)
        if self.path.is_symlink():
            raise _linked(self.path)
        if leading:
            self._take()
        else:
            self.resumed = True

    def __enter__(self) -> StagedFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            unlock_folder(self.path if self.path.is_dir() else self.out, self._lock)
            self._lock = None

    def report(self, progress: Progress) -> None:
        """Say whether there is nothing left to do, or a stopped run to go on with."""
        if self.finished:
            progress.say(f"{self.out} is finished already; nothing is computed again")
        elif self.resumed:
            progress.say(f"going on with {self.path}")

    def commit(self, exclude: Sequence[str] = (), *, mutable: Sequence[str] = ()) -> None:
        """Write the checksums of all files and rename the folder to its final name.

        Args:
            exclude: files and folders that only the run needed; they are removed.
            mutable: files that may change later, and carry a checksum of their own.
        """
        for name in exclude:
            remove(self.path / name)
        write_bytes(self.path / SUMS, folder_checksums(self.path, exclude=(LOCK, *mutable)))
        for folder in [self.path, *(entry for entry in _below(self.path) if entry.is_dir())]:
            _sync(folder)
        self.path.replace(self.out)
        self.close()
        _sync(self.out.parent)

    def _take(self) -> None:
        """Lock the partial folder, unless another run has committed it meanwhile."""
        try:
            _create(self.path, self._key)
            self._lock = lock_folder(self.path)
        except FileNotFoundError:
            if _read_key(self.out) != self._key:
                raise
            self.finished = True
            return
        try:
            if _read_key(self.out) == self._key:
                self.finished = True
                if {entry.name for entry in self.path.iterdir()} <= {LOCK}:
                    remove(self.path)
                self.close()
            else:
                self.resumed = _prepare(self.path, self._key)
        except BaseException:
            self.close()
            raise


@contextmanager
def lock_workdir(folder: Path, key: dict[str, Any], *, wait: bool = False) -> Iterator[bool]:
    """Lock a folder to which files of ``key`` are added in place, created if it is missing, and yield whether it may already hold some.

    Raises:
        OutputError: the folder holds something else, or work of another key, or another run works there.
        DamagedFile: its ``run.json`` is damaged.
    """
    key = json.loads(json.dumps(key))
    _create(folder, key)
    with locked(folder, wait=wait):
        yield _prepare(folder, key)


def folder_of_key(folder: Path, kind: str, key: Mapping[str, Any]) -> Path:
    """Return the folder, in ``folder``, for results of ``kind`` that ``key`` decides."""
    return folder / f"{kind}-{digest_of(key)[:16]}"


def kept_tensors(
    folder: Path, kind: str, key: dict[str, Any], number: int, compute: Callable[[], dict[str, Tensor]], progress: Progress = SILENT
) -> dict[str, Tensor]:
    """Return tensors that ``key`` and ``number`` decide: those that an earlier run left in ``folder``, or else computed and kept there.

    Args:
        folder: holds a folder for each ``kind`` and key, in which each number has a file.
        kind: first part of that folder's name.
        key: JSON values that decide the tensors of all numbers.
        number: number of the tensors under the key, such as that of a class.
        compute: makes them.
        progress: where to report a damaged file, which is made again.
    """
    place = folder_of_key(folder, kind, key)
    file = place / f"{number:06d}.safetensors"
    with lock_workdir(place, key, wait=True):
        tensors = load_if_valid(file, read_tensors, progress)
        if tensors is None:
            tensors = compute()
            write_tensors(file, tensors)
    return tensors


def kept_key(out: str | Path) -> dict[str, Any]:
    """Return the key of the run that made ``out``, finished or not; empty where there is none."""
    folder = with_a_name(Path(out))
    return _read_key(folder) or _read_key(folder.with_name(folder.name + PARTIAL)) or {}


def require_free_or_ours(out: str | Path) -> None:
    """Raise :class:`OutputError` where ``out`` holds something that is no result of d3hr; for commands to call before any work."""
    folder = with_a_name(Path(out))
    if not (folder / _KEY_FILE).is_file():
        require_free(folder)


def require_free(out: Path) -> None:
    """Raise :class:`OutputError` unless ``out`` does not exist or is an empty folder."""
    if not out.is_symlink() and (not out.exists() or (out.is_dir() and not any(out.iterdir()))):
        return
    kind = f"a folder that holds {sum(1 for _ in out.iterdir())} entries" if out.is_dir() else "a file"
    raise OutputError(
        f"{out} already exists and is no result of d3hr.",
        found="a symbolic link" if out.is_symlink() else kind,
        hint="choose another --out, or move it away; d3hr never overwrites.",
    )


def require_no_links(folder: Path) -> None:
    """Raise :class:`OutputError` if there is a symbolic link below ``folder``: what is written through it would end up elsewhere."""
    for path in _below(folder):
        if path.is_symlink():
            raise _linked(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _create(folder: Path, key: dict[str, Any]) -> None:
    """Create a folder, if it is missing; one that holds something else is refused before anything, such as a lock, is written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created.", found=str(error), hint="choose another --out.") from error
    _require_ours(folder, key)


def _prepare(folder: Path, key: dict[str, Any]) -> bool:
    """Write the key into a locked folder, or return True if it is there; remove temporary files of a killed run."""
    require_no_links(folder)
    if not _require_ours(folder, key):
        write_json(folder / _KEY_FILE, key)
        return False
    for path in _below(folder):
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)
    return True


def _require_ours(folder: Path, key: dict[str, Any]) -> bool:
    """Return True if a folder holds work of ``key``, False if it is empty; refuse anything else."""
    before = _read_key(folder)
    if before is None:
        if any(entry for entry in folder.iterdir() if entry.name != LOCK and not entry.name.endswith(".tmp")):
            raise OutputError(
                f"{folder} holds something that is not a run of d3hr.",
                found=f"no {_KEY_FILE} in it",
                hint="choose another --out, or move that folder away.",
            )
        return False
    if before != key:
        raise _of_another_run(folder, before, key)
    return True


def _of_another_run(folder: Path, before: dict[str, Any], key: dict[str, Any]) -> OutputError:
    """Return the error that names every setting and input in which a run differs from the one that ``folder`` holds."""
    old, new = dict(flat(before)), dict(flat(key))
    changed = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return OutputError(
        f"{folder} already exists: a run with other settings or inputs.",
        found=listed([f"{name} was {_shortened(old.get(name))}, is {_shortened(new.get(name))}" for name in changed], separator="; "),
        hint="repeat that run's command to go on with it, choose another --out, or move that folder away.",
    )


def _shortened(value: str | None) -> str:
    return "not set" if value is None else value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."


def _read_key(folder: Path) -> dict[str, Any] | None:
    path = folder / _KEY_FILE
    if not path.is_file():
        return None
    try:
        key = read_json(path)
    except DamagedFile as error:
        raise DamagedFile(
            f"{path} is damaged: nothing else says which run made {folder}.",
            found=error.found,
            hint=f"delete {folder} and repeat the command that made it, or choose another --out.",
        ) from error
    return key if isinstance(key, dict) else None


def _linked(path: Path) -> OutputError:
    return OutputError(
        f"{path} is a symbolic link.", found=f"to {path.readlink()}", hint="remove it; d3hr does not write through links below --out."
    )


def _below(folder: Path) -> list[Path]:
    return [Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files)]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
