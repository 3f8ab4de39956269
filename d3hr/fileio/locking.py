"""A lock that keeps two runs out of one folder; the operating system releases it when a process ends, however it ends."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from d3hr.errors import OutputError

LOCK = ".lock"
"""The file in a folder that its lock is on; it tells who holds it, and is gone when nobody does, unless a run was killed."""


def lock_folder(folder: Path, *, wait: bool = False) -> BaseFileLock:
    """Take the lock of an existing folder; whoever takes it gives it back by :func:`unlock_folder`.

    Args:
        folder: the folder.
        wait: whether to wait for another run that has it.

    Raises:
        OutputError: another run has it and ``wait`` is false, or the disk knows no locks.
        FileNotFoundError: the folder was moved meanwhile.
    """
    file = folder / LOCK
    if file.is_symlink():
        raise OutputError(f"{file} is a symbolic link.", found=f"to {file.readlink()}", hint="remove it; d3hr writes through none.")
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise OutputError(
            f"Another run works in {folder}.",
            found=_holder(file),
            hint="wait until it has ended, or stop it, then repeat the command; or choose another --out.",
        ) from None
    except NotImplementedError as error:
        raise OutputError(
            f"{folder} cannot be locked.", found=str(error), hint="choose an --out on a disk that knows file locks."
        ) from error
    with suppress(OSError):  # who holds it is only for the message; a full disk is met later, where something is lost
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        file.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}), encoding="utf-8")
    return lock


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a folder, as :func:`lock_folder` takes it, for as long as the block runs."""
    lock = lock_folder(folder, wait=wait)
    try:
        yield
    finally:
        unlock_folder(folder, lock)


def unlock_folder(folder: Path, lock: BaseFileLock) -> None:
    """Remove the lock's file, wherever the folder is now, and let other runs in; one that waits on the file makes a new one."""
    (folder / LOCK).unlink(missing_ok=True)
    lock.release()


def remove_lock(folder: Path) -> None:
    """Remove the lock file of a finished folder, where a run was killed as the folder appeared; not one that is held."""
    with suppress(OutputError, OSError):
        if (folder / LOCK).is_file():
            unlock_folder(folder, lock_folder(folder))


def _holder(file: Path) -> str:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return f"process {told['pid']} on {told['host']}, since {told['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that does not tell its name"
