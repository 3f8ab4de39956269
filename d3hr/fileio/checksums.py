"""Checksums that files carry, so that a flipped bit is found before anything is built on it.

A JSON object that d3hr writes ends with the key ``sha256`` over the rest of it; in a list, which other programs expect to stay one, every
object has its own. A safetensors file has it in its metadata. A finished folder has a ``SHA256SUMS``, which ``sha256sum -c`` reads too.
Whatever carries none, from other tools or earlier versions, is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d3hr.errors import DamagedFile, listed

KEY = "sha256"
"""Where an object or a file's metadata carries its checksum."""
SUMS = "SHA256SUMS"
"""The file of a finished folder that lists the checksums of all others."""
_OWN = "# sha256 of the lines above: "
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


class WrongSum(ValueError):
    """Something does not have the checksum that it carries."""


def with_sum(content: Any) -> Any:
    """Return JSON values with the checksum of an object, or of each object in a list, as its last key."""
    plain = json.loads(json.dumps(content))
    if isinstance(plain, list):
        return [with_sum(row) if isinstance(row, dict) else row for row in plain]
    return {**plain, KEY: _sum_of(plain)} if isinstance(plain, dict) else plain


def without_sum(content: Any) -> Any:
    """Return what :func:`with_sum` was given.

    Raises:
        WrongSum: a checksum does not fit what it stands beside.
    """
    if isinstance(content, list):
        return [without_sum(row) if isinstance(row, dict) else row for row in content]
    if not isinstance(content, dict):
        return content
    key = key_of_sum(content)
    plain = {name: value for name, value in content.items() if name != key}
    if key is not None and (content[key] == _sum_of(plain)) != (key == KEY):
        raise WrongSum("its checksum does not fit its content")
    return plain if key == KEY else content


def key_of_sum(values: Mapping[str, Any]) -> str | None:
    """Return where a checksum stands, or may stand if a flipped bit has renamed its key, which then fits all the rest."""
    if KEY in values:
        return KEY
    return next((name for name, value in reversed(list(values.items())) if isinstance(value, str) and len(value) == 64), None)


def _sum_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def sum_of_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of tensors on the CPU, and over the metadata beside them."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_sums(folder: Path, write: Callable[[Path, bytes], None], *, exclude: Iterable[str] = ()) -> None:
    """Write the ``SHA256SUMS`` of every file below ``folder``, by ``write``, less those named: they check themselves or go away."""
    left_out = {SUMS, *exclude}
    names = sorted(path.relative_to(folder).as_posix() for path in _files(folder))
    text = "".join(_line(folder, name) for name in names if name not in left_out).encode(errors="surrogateescape")
    write(folder / SUMS, text + f"{_OWN}{hashlib.sha256(text).hexdigest()}\n".encode())


def verify(folder: str | Path) -> None:
    """Make sure that every file of a finished folder is what it was when the folder appeared; one without ``SHA256SUMS`` passes.

    Raises:
        DamagedFile: a file has changed or is missing; it names them.
    """
    root = Path(folder)
    file = root / SUMS
    if not file.is_file():
        return
    advice = f"delete {root} and repeat the command that made it; if the change is yours, delete {file} instead."
    text, _, own = file.read_bytes().rpartition(_OWN.encode())
    if own != f"{hashlib.sha256(text).hexdigest()}\n".encode():
        raise DamagedFile(f"{file} is damaged.", found="its checksum does not fit its content", hint=advice)
    wrong = [f"{name} ({why})" for name, why in _wrong(root, text.decode(errors="surrogateescape"))]
    if wrong:
        raise DamagedFile(f"{root} is damaged: {len(wrong)} of its files are not what was written.", found=listed(wrong), hint=advice)


def _wrong(root: Path, lines: str) -> Iterator[tuple[str, str]]:
    for line in filter(None, lines.split("\n")):
        escaped = line.startswith("\\")
        expected, _, name = line.removeprefix("\\").partition("  ")
        if escaped:
            name = name.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")
        path = root / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            yield name, "outside the folder"
        elif path.is_symlink() or not path.is_file():
            yield name, "a link or folder instead of it" if os.path.lexists(path) else "missing"
        elif _sum_of_file(path) != expected:
            yield name, "other bytes"


def _line(folder: Path, name: str) -> str:
    shown = "".join(_ESCAPES.get(character, character) for character in name)
    mark = "" if shown == name else "\\"
    return f"{mark}{_sum_of_file(folder / name)}  {shown}\n"


def _sum_of_file(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def fingerprint(networks: Iterable[nn.Module], about: Any) -> str:
    """Return a SHA-256 over every weight of ``networks`` and the text of ``about``.

    Args:
        networks: networks, in a fixed order.
        about: what else decides their results; its ``repr`` is hashed.
    """
    digest = hashlib.sha256(repr(about).encode())
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
