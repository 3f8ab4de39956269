"""Files that appear whole or not at all, and are looked at before they are trusted.

A file is written to a temporary neighbour, flushed to the disk and renamed; it carries its checksum.
"""

from __future__ import annotations

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

Piece = TypeVar("Piece")


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
    checksum = digest_of_tensors(values, metadata or {})
    with explained(path), atomic_file(path) as temporary:
        save_file(values, temporary, {**(metadata or {}), KEY: checksum})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, memory-mapped.

    Raises:
        DamagedFile: they are not what :func:`write_tensors` was given.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, as :func:`read_tensors`, and its metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return tensors, checked(file.metadata() or {}, lambda metadata: digest_of_tensors(tensors, metadata))
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, str(error)) from error


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
            f"{path} cannot be written.", found=str(error), hint="free some space; the same command then goes on from there."
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
    values = with_checksums(content) if checksum else content
    write_bytes(path, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return what :func:`write_json` was given, or the content of any other JSON file.

    Raises:
        DamagedFile: it is no JSON, or not what was written.
    """
    try:
        return without_checksums(json.loads(path.read_bytes().decode()))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, f"no JSON: {error}") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def load_if_valid(path: Path, read: Callable[[Path], Piece], progress: Progress = SILENT) -> Piece | None:
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


def load_or_make(path: Path, make: Callable[[], Any], progress: Progress = SILENT) -> Any:
    """Return the JSON values of a file that an earlier run finished; where there is none, make them and write it.

    Args:
        path: its file.
        make: makes the values.
        progress: where a damaged file is reported.
    """
    values = load_if_valid(path, read_json, progress)
    if values is None:
        write_json(path, make())
        values = read_json(path)
    return values


def _damaged(path: Path, found: str) -> DamagedFile:
    return DamagedFile(f"{path} is damaged.", found=found, hint="delete it, or its folder, and repeat the command that wrote it.")
