"""A lock that keeps a second run out of a folder; the operating system releases it when a process ends, however it ends."""

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
"""The locked file in a folder. It names the process that holds the lock, and is removed with it, unless the run was killed."""


def lock_folder(folder: Path, *, wait: bool = False) -> BaseFileLock:
    """Lock an existing folder, until :func:`unlock_folder`.

    Raises:
        OutputError: another run holds the lock and ``wait`` is false, or the disk does not support locks.
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
            f"{folder} cannot be locked.", found=str(error), hint="choose an --out on a disk that supports file locks."
        ) from error
    with suppress(OSError):  # only for the message of other runs; a full disk is reported where it matters
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        file.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}), encoding="utf-8")
    return lock


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a folder for as long as the block runs; arguments and errors are those of :func:`lock_folder`."""
    lock = lock_folder(folder, wait=wait)
    try:
        yield
    finally:
        unlock_folder(folder, lock)


def unlock_folder(folder: Path, lock: BaseFileLock) -> None:
    """Remove the lock file and release the lock; a run that waits for it creates a new file."""
    (folder / LOCK).unlink(missing_ok=True)
    lock.release()


def remove_lock(folder: Path) -> None:
    """Remove the lock file that a run which was killed while it committed left in a finished folder; not one that is held."""
    with suppress(OutputError, OSError):
        if (folder / LOCK).is_file():
            unlock_folder(folder, lock_folder(folder))


def _holder(file: Path) -> str:
    try:
        holder = json.loads(file.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process of unknown number"
