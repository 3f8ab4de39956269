"""Checksums, so that a flipped bit is found before anything is built on it. All are SHA-256, in hexadecimal digits.

    JSON object           carries its own as ``sha256``, the last key, over all other keys
    list of JSON objects  each object carries its own, so that other programs find the list that they expect
    safetensors file      carries its own as ``sha256`` in its metadata, over the tensors and the rest of the metadata
    finished folder       has a ``SHA256SUMS`` of all its files, which ``sha256sum -c`` reads too, and which ends with its own
    networks              :func:`fingerprint` of their weights, which keys of results contain

What carries none comes from other tools and is taken as it is.
"""

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
_OWN = b"# sha256 of the lines above: "


def digest_of(values: Any) -> str:
    """Return the checksum of JSON values, in which the order of keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def digest_of_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the checksum of names, types, shapes and bytes of tensors on the CPU, and of their metadata."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(bytes_of(value))
    return digest.hexdigest()


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU, row by row, of which no copy is made if it is contiguous."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def fingerprint(networks: Iterable[nn.Module], about: Any) -> str:
    """Return a SHA-256 over every weight of ``networks``, in order, and the ``repr`` of ``about``, what else decides their results."""
    digest = hashlib.sha256(repr(about).encode())
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(bytes_of(value.cpu()))
    return digest.hexdigest()


def with_checksums(content: Any) -> Any:
    """Return JSON values with the checksum of an object, or of each object in a list."""
    plain = json.loads(json.dumps(content))
    if isinstance(plain, list):
        return [with_checksums(row) if isinstance(row, dict) else row for row in plain]
    return {**plain, KEY: digest_of(plain)} if isinstance(plain, dict) else plain


def without_checksums(content: Any) -> Any:
    """Return what :func:`with_checksums` was given; errors are those of :func:`checked`."""
    if isinstance(content, list):
        return [without_checksums(row) if isinstance(row, dict) else row for row in content]
    return checked(content, digest_of) if isinstance(content, dict) else content


def checked(values: Mapping[str, Any], digest: Callable[[Mapping[str, Any]], str]) -> dict[str, Any]:
    """Return values without the checksum that they carry, if any: the ``digest`` of the others.

    Raises:
        ValueError: the checksum does not fit; or the last value in the form of one fits, but its key is not :data:`KEY`: a bit has flipped.
    """
    texts = [name for name, value in values.items() if isinstance(value, str) and len(value) == 64]
    key = KEY if KEY in values else texts[-1] if texts else None
    others = {name: value for name, value in values.items() if name != key}
    if key is not None and (values[key] == digest(others)) != (key == KEY):
        raise ValueError("its checksum does not fit its content")
    return others if key == KEY else dict(values)


def folder_checksums(folder: Path, exclude: Iterable[str] = ()) -> bytes:
    """Return the content of ``SHA256SUMS``: every file below ``folder``, less those named, which check themselves or go away."""
    left_out = {SUMS, *exclude}
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    lines = "".join(_line(folder, name) for name in names if name not in left_out).encode(errors="surrogateescape")
    return lines + _OWN + f"{hashlib.sha256(lines).hexdigest()}\n".encode()


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
    lines, _, own = file.read_bytes().rpartition(_OWN)
    if own != f"{hashlib.sha256(lines).hexdigest()}\n".encode():
        raise DamagedFile(f"{file} is damaged.", found="its checksum does not fit its content", hint=advice)
    wrong = [f"{name} ({why})" for name, why in _wrong(root, lines.decode(errors="surrogateescape"))]
    if wrong:
        raise DamagedFile(f"{root} is damaged: {len(wrong)} of its files are not what was written.", found=listed(wrong), hint=advice)


def _line(folder: Path, name: str) -> str:
    """Return a file's line in the form of GNU coreutils: a name with a backslash or line break is escaped, and marked as such."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "" if escaped == name else "\\"
    return f"{mark}{_digest_of_file(folder / name)}  {escaped}\n"


def _wrong(root: Path, lines: str) -> Iterator[tuple[str, str]]:
    """Yield the name of every file that is not what its line says, and why."""
    for line in filter(None, lines.split("\n")):
        expected, _, name = line.removeprefix("\\").partition("  ")
        if line.startswith("\\"):
            name = name.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")
        path = root / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            yield name, "outside the folder"
        elif path.is_symlink() or not path.is_file():
            yield name, "a link or folder instead of it" if os.path.lexists(path) else "missing"
        elif _digest_of_file(path) != expected:
            yield name, "other bytes"


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
