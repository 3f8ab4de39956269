"""Output that appears whole or not at all, and is looked at before it is trusted.

A file is written to a temporary neighbour, flushed to the disk and renamed; it carries its checksum. A folder is built as
``<out>.partial`` and renamed to ``<out>`` when it is complete; until then the partial folder holds the finished pieces, from which the
same run goes on. What a folder is made of (settings, fingerprints) stands in its ``run.json``. One run at a time works in a folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from filelock import BaseFileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from d3hr.checksums import KEY, WrongSum, key_of_sum, sum_of_tensors, with_sum, without_sum, write_sums
from d3hr.errors import DamagedFile, OutputError
from d3hr.locking import LOCK, lock_folder, remove_lock, unlock_folder
from d3hr.progress import SILENT, Progress

Piece = TypeVar("Piece")
_KEY_FILE = "run.json"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is fsynced and takes ``path``'s place, on failure it is removed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # what lies there may be a link to somewhere else
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write ``tensors`` as safetensors with their checksum, atomically.

    Raises:
        OutputError: the file cannot be written, for example because the disk is full.
    """
    values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {**(metadata or {}), KEY: sum_of_tensors(values, metadata or {})}
    with explained(path), atomic_file(path) as temporary:
        save_file(values, temporary, about)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, memory-mapped.

    Raises:
        DamagedFile: they are not what :func:`write_tensors` was given.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, as :func:`read_tensors`, and the metadata beside them."""
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    key = key_of_sum(about)
    plain = {name: value for name, value in about.items() if name != key}
    if key is not None and (about[key] == sum_of_tensors(tensors, plain)) != (key == KEY):
        raise _damaged(path, "its checksum does not fit its content")
    return tensors, plain if key == KEY else about


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Give safetensors' and the system's complaints about writing below ``path`` a name and a next step.

    Raises:
        OutputError: safetensors cannot write, for example because the disk is full.
    """
    try:
        yield
    except SafetensorError as error:
        raise OutputError(
            f"{path} cannot be written.", found=str(error), do="free some space; the same command then goes on from there."
        ) from error
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_json(path: Path, content: Any, *, checksum: bool = True) -> None:
    """Write ``content`` as indented UTF-8 JSON, atomically.

    Args:
        path: the file.
        content: JSON values.
        checksum: whether objects get a key ``sha256``; not in a form that another tool defines.
    """
    told = with_sum(content) if checksum else content
    write_bytes(path, (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return what :func:`write_json` was given, or the content of any other JSON file.

    Raises:
        DamagedFile: it is no JSON, or not what was written.
    """
    try:
        return without_sum(json.loads(path.read_bytes().decode()))
    except WrongSum as error:
        raise _damaged(path, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"no JSON: {error}") from error


def kept(path: Path, read: Callable[[Path], Piece], progress: Progress = SILENT) -> Piece | None:
    """Return a piece that an earlier run finished; None where there is none, or a damaged one, which is removed to be made again.

    Args:
        path: its file.
        read: reads it, and raises :class:`~d3hr.errors.DamagedFile` where it is not what was written.
        progress: where to say that one is damaged.
    """
    try:
        return read(path) if os.path.lexists(path) else None
    except FileNotFoundError:
        return None  # another process of this run has just removed it
    except DamagedFile as error:
        progress.say(f"{path} is damaged ({error.found}): it is made again")
        path.unlink(missing_ok=True)
        return None


class StagedFolder:
    """A folder under construction, or finished by an earlier run of the same key; inside ``with``, no other run works on it.

    Args:
        out: where the finished folder will stand.
        key: what the work is made of, as JSON values.
        leading: whether this process, of those that work together, is the one that keeps others out and publishes.

    Attributes:
        path: the folder to write finished pieces into.
        finished: whether ``out`` already holds the finished work of this key; nothing is left to do then.
        resumed: whether finished pieces of an earlier, interrupted run may lie in ``path``.

    Raises:
        OutputError: ``out`` holds something else, ``path`` holds an unfinished run of another key, or another run works there.
        DamagedFile: it cannot be told whose work ``out`` or ``path`` holds.
    """

    def __init__(self, out: str | Path, key: dict[str, Any], *, leading: bool = True) -> None:
        self.out = Path(out)
        self.path = self.out.with_name(self.out.name + ".partial")
        self.resumed = False
        self._lock: BaseFileLock | None = None
        self._key = json.loads(json.dumps(key))
        self.finished = _read_key(self.out) == self._key
        if self.finished:
            remove_lock(self.out)
            return
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
        """Let other runs in."""
        if self._lock is not None:
            unlock_folder(self.path if self.path.is_dir() else self.out, self._lock)
            self._lock = None

    def publish(self, without: Sequence[str] = (), *, growing: Sequence[str] = ()) -> None:
        """Make the folder appear under its final name, with the checksums of its files.

        Args:
            without: pieces that only the run needed.
            growing: files that will change later; they carry a checksum of their own.
        """
        for name in without:
            remove(self.path / name)
        write_sums(self.path, write_bytes, without=(LOCK, *growing))
        _sync_folders(self.path)
        self.path.replace(self.out)
        self.close()
        _sync(self.out.parent)

    def _take(self) -> None:
        """Lock the partial folder, unless another run has published it meanwhile."""
        try:
            self._lock = _lock(self.path, self._key, wait=False)
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
                self.resumed = _go_on(self.path, self._key)
        except BaseException:
            self.close()
            raise


@contextmanager
def claim(folder: Path, key: dict[str, Any], *, wait: bool = False) -> Iterator[bool]:
    """Make ``folder`` the place of the work of ``key``, alone, and yield whether pieces of that work may already lie in it.

    Args:
        folder: a folder that grows in place.
        key: what the work is made of, as JSON values.
        wait: whether to wait for another run that works there.

    Raises:
        OutputError: the folder holds something else, or work of another key, or another run works there.
        DamagedFile: it cannot be told whose work the folder holds.
    """
    key = json.loads(json.dumps(key))
    lock = _lock(folder, key, wait=wait)
    try:
        yield _go_on(folder, key)
    finally:
        unlock_folder(folder, lock)


def require_free(out: Path) -> None:
    """Raise :class:`OutputError` unless ``out`` does not exist or is an empty folder."""
    if not out.is_symlink() and (not out.exists() or (out.is_dir() and not any(out.iterdir()))):
        return
    kind = f"a folder that holds {sum(1 for _ in out.iterdir())} entries" if out.is_dir() else "a file"
    raise OutputError(
        f"{out} already exists and is not the result of this very command.",
        found="a symbolic link" if out.is_symlink() else kind,
        do="choose another --out, or move it away; d3hr never overwrites.",
    )


def require_no_links(folder: Path) -> None:
    """Raise :class:`OutputError` if a symbolic link lies below ``folder``: what is written there would end up elsewhere."""
    for path in _below(folder):
        if path.is_symlink():
            raise _linked(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _lock(folder: Path, key: dict[str, Any], *, wait: bool) -> BaseFileLock:
    """Lock a folder, made if need be; one that holds something else is refused before anything is written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created.", found=str(error), do="choose another --out.") from error
    _require_ours(folder, key)
    return lock_folder(folder, wait=wait)


def _go_on(folder: Path, key: dict[str, Any]) -> bool:
    """Make a locked folder the place of ``key``, clear what a killed run left half-written, and return whether it was so before."""
    require_no_links(folder)
    if not _require_ours(folder, key):
        write_json(folder / _KEY_FILE, key)
        return False
    for path in _below(folder):
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)
    return True


def _require_ours(folder: Path, key: dict[str, Any]) -> bool:
    """Return whether a folder holds work of ``key``, or False where it is empty; refuse anything else."""
    before = _read_key(folder)
    if before is None:
        if any(entry for entry in folder.iterdir() if entry.name != LOCK and not entry.name.endswith(".tmp")):
            raise OutputError(
                f"{folder} holds something that is not a run of d3hr.",
                found=f"no {_KEY_FILE} in it",
                do="choose another --out, or move that folder away.",
            )
        return False
    if before != key:
        raise OutputError(
            f"{folder} holds a run with other settings or inputs.",
            found=_difference(before, key),
            do="repeat that run's command to go on with it, choose another --out, or delete that folder.",
        )
    return True


def _read_key(folder: Path) -> dict[str, Any] | None:
    path = folder / _KEY_FILE
    if not path.is_file():
        return None
    try:
        key = read_json(path)
    except DamagedFile as error:
        raise DamagedFile(
            f"{path} is damaged: nothing else tells which run made {folder}.",
            found=error.found,
            do=f"delete {folder} and repeat the command that made it, or choose another --out.",
        ) from error
    return key if isinstance(key, dict) else None


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return "; ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in changed)


def _damaged(path: Path, found: str) -> DamagedFile:
    return DamagedFile(
        f"{path} is damaged.", found=found, do="delete it, or the folder it stands in, and repeat the command that wrote it."
    )


def _linked(path: Path) -> OutputError:
    return OutputError(
        f"{path} is a symbolic link.", found=f"to {path.readlink()}", do="remove it; d3hr does not write through links below --out."
    )


def _below(folder: Path) -> list[Path]:
    return [Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files)]


def _sync_folders(folder: Path) -> None:
    for path in [folder, *(entry for entry in _below(folder) if entry.is_dir())]:
        _sync(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
