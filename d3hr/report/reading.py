"""Reads files of kept results: JSON that a model describes, or an error that says what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from d3hr.errors import DamagedFile, ResultsError
from d3hr.staging import read_json as read_own_json

Model = TypeVar("Model")


def read_json(file: Path, adapter: TypeAdapter[Model], *, do: str) -> Model:
    """Return what ``file`` holds; numbers that JSON does not know (NaN, Infinity) are read as null.

    Args:
        file: the file.
        adapter: what it must hold.
        do: which command writes it.

    Raises:
        ResultsError: the file is missing, no JSON, or not of that form, or not what was written.
    """
    if not file.is_file():
        raise ResultsError(f"There is no {file}.", found="a folder without it" if file.parent.is_dir() else "no such folder", do=do)
    try:
        read_own_json(file)  # complains of a wrong checksum
        return adapter.validate_python(json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda _: None))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ResultsError(f"{file} is damaged.", found=f"{where}: {first['msg']}, got {first['input']!r:.80}", do=do) from error
    except DamagedFile as error:
        raise ResultsError(f"{file} is damaged.", found=error.found, do=do) from error
