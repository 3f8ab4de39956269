"""Output that appears whole or not at all.

A file is written to a temporary neighbour, flushed to the disk and renamed. A folder is built as ``<out>.partial`` and renamed to
``<out>`` when it is complete; until then the partial folder holds the finished pieces, from which the same run goes on. What a
folder is made of (settings, fingerprints) stands in its ``run.json``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from d3hr.errors import OutputError

_KEY_FILE = "run.json"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is fsynced and takes ``path``'s place, on failure it is removed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
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
    """Write ``tensors`` as safetensors, atomically.

    Raises:
        OutputError: the file cannot be written, for example because the disk is full.
    """
    try:
        with atomic_file(path) as temporary:
            save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary, metadata)
    except SafetensorError as error:
        raise OutputError(
            f"{path} cannot be written.", found=str(error), do="free some space; the same command then goes on from there."
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented UTF-8 JSON, atomically."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


class StagedFolder:
    """A folder under construction, or finished by an earlier run of the same key.

    Args:
        out: where the finished folder will stand.
        key: what the work is made of, as JSON values.

    Attributes:
        path: the folder to write finished pieces into.
        finished: whether ``out`` already holds the finished work of this key; nothing is left to do then.
        resumed: whether finished pieces of an earlier, interrupted run may lie in ``path``.

    Raises:
        OutputError: ``out`` holds something else, or ``path`` holds an unfinished run of another key.
    """

    def __init__(self, out: str | Path, key: dict[str, Any]) -> None:
        self.out = Path(out)
        self.path = self.out.with_name(self.out.name + ".partial")
        self.finished = _read_key(self.out) == json.loads(json.dumps(key))
        self.resumed = False
        if not self.finished:
            require_free(self.out)
            self.resumed = claim(self.path, key)

    def publish(self, without: Sequence[str] = ()) -> None:
        """Make the folder appear under its final name, less the pieces that only the run needed."""
        for name in without:
            _remove(self.path / name)
        _sync_folders(self.path)
        self.path.replace(self.out)


def claim(folder: Path, key: dict[str, Any]) -> bool:
    """Make ``folder`` the place of the work of ``key``, and return whether pieces of that work may already lie in it.

    Raises:
        OutputError: the folder holds something else, or work of another key.
    """
    key = json.loads(json.dumps(key))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created.", found=str(error), do="choose another --out.") from error
    before = _read_key(folder)
    if before is None:
        if any(entry for entry in folder.iterdir() if not entry.name.endswith(".tmp")):
            raise OutputError(
                f"{folder} holds something that is not a run of d3hr.",
                found=f"no {_KEY_FILE} in it",
                do="choose another --out, or move that folder away.",
            )
        write_json(folder / _KEY_FILE, key)
        return False
    if before != key:
        raise OutputError(
            f"{folder} holds a run with other settings or inputs.",
            found=_difference(before, key),
            do="repeat that run's command to go on with it, choose another --out, or delete that folder.",
        )
    for leftover in folder.rglob(".*.tmp"):
        leftover.unlink()
    return True


def require_free(out: Path) -> None:
    """Raise :class:`OutputError` unless ``out`` does not exist or is an empty folder."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    kind = f"a folder that holds {sum(1 for _ in out.iterdir())} entries" if out.is_dir() else "a file"
    raise OutputError(
        f"{out} already exists and is not the result of this very command.",
        found=kind,
        do="choose another --out, or move it away; d3hr never overwrites.",
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read_key(folder: Path) -> dict[str, Any] | None:
    path = folder / _KEY_FILE
    if not path.is_file():
        return None
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return key if isinstance(key, dict) else None


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return "; ".join(f"{name} was {before.get(name)}, is {now.get(name)}" for name in changed)


def _sync_folders(folder: Path) -> None:
    for path in [folder, *(entry for entry in folder.rglob("*") if entry.is_dir())]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
