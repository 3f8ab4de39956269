"""Reads and writes files: whole or not at all, with a checksum that is verified when they are read.

A file is written to a temporary file in the same folder, flushed to the disk and renamed.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from d3hr.errors import DamagedFile, OutputError
from d3hr.fileio.checksums import KEY, checked, digest_of_tensors, with_checksums, without_checksums
from d3hr.progress import SILENT, Progress

Content = TypeVar("Content")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is flushed to the disk and replaces ``path``, on failure it is removed."""
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
    """Write ``tensors`` as safetensors with their checksum, atomically."""
    values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    checksum = digest_of_tensors(values, metadata or {})
    with explained(path), atomic_file(path) as temporary:
        save_file(values, temporary, {**(metadata or {}), KEY: checksum})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of :func:`read_checkpoint`."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, memory-mapped, and its metadata.

    Raises:
        DamagedFile: it is no safetensors file, or its checksum does not fit.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return tensors, checked(file.metadata() or {}, lambda metadata: digest_of_tensors(tensors, metadata))
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, str(error)) from error


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Name the file in an error of safetensors or of the system about writing ``path``, or below it.

    Raises:
        OutputError: safetensors cannot write, for example because the disk is full.
    """
    try:
        yield
    except SafetensorError as error:
        raise OutputError(
            f"{path} cannot be written.", found=str(error), hint="free some space; the same command then goes on from there."
        ) from error
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_json(path: Path, content: Any, *, checksum: bool = True) -> None:
    """Write JSON values as indented UTF-8, atomically; ``checksum`` is False for a form that another tool defines."""
    values = with_checksums(content) if checksum else content
    write_bytes(path, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return the values of a JSON file, without checksums.

    Raises:
        DamagedFile: it is not JSON, or a checksum does not fit.
    """
    try:
        return without_checksums(json.loads(path.read_bytes().decode()))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, f"no JSON: {error}") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def load_if_valid(path: Path, read: Callable[[Path], Content], progress: Progress = SILENT) -> Content | None:
    """Return what ``read`` makes of a file that an earlier run finished; None if there is none, or a damaged one, which is removed."""
    try:
        return read(path) if os.path.lexists(path) else None
    except FileNotFoundError:
        return None  # another process of this run has just removed it
    except DamagedFile as error:
        progress.say(f"{path} is damaged ({error.found}): it is made again")
        path.unlink(missing_ok=True)
        return None


def load_or_make(path: Path, make: Callable[[], Any], progress: Progress = SILENT) -> Any:
    """Return the JSON values of a file that an earlier run finished; where there is none, make them and write it."""
    values = load_if_valid(path, read_json, progress)
    if values is None:
        write_json(path, make())
        values = read_json(path)
    return values


def _damaged(path: Path, found: str) -> DamagedFile:
    return DamagedFile(f"{path} is damaged.", found=found, hint="delete it, or its folder, and repeat the command that wrote it.")
