"""Reads small files of settings and results: JSON and YAML of plain values, or an error that says what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, TypeAdapter, ValidationError, model_serializer

from d3hr.errors import DamagedFile, ResultsError
from d3hr.fileio.atomic import read_json

MAX_BYTES = 2**20
"""Largest file of settings that is read: 1 MiB."""
MAX_DEPTH = 50
"""Deepest nesting of a file of settings."""
Model = TypeVar("Model")


class Record(BaseModel):
    """What is known of something, as a file keeps it: what was not given is not written, and fields that it does not have are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @model_serializer(mode="wrap")
    def _write(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if name in self.model_fields_set}


def validated_json(file: Path, adapter: TypeAdapter[Model], *, hint: str) -> Model:
    """Return what ``file`` holds; numbers that JSON does not know (NaN, Infinity) are read as null.

    Args:
        file: the file.
        adapter: what it must hold.
        hint: which command writes it.

    Raises:
        ResultsError: the file is missing, no JSON, not what was written, or not of that form.
    """
    if not file.is_file():
        raise ResultsError(f"There is no {file}.", found="a folder without it" if file.parent.is_dir() else "no such folder", hint=hint)
    try:
        return adapter.validate_python(json.loads(json.dumps(read_json(file)), parse_constant=lambda _: None))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ResultsError(f"{file} is damaged.", found=f"{where}: {first['msg']}, got {first['input']!r:.80}", hint=hint) from error
    except DamagedFile as error:
        raise ResultsError(f"{file} is damaged.", found=error.found, hint=hint) from error


def read_yaml(path: str | Path) -> Any:
    """Return the plain values in a YAML file.

    Raises:
        ValueError: it is too large, no UTF-8, not :func:`plain_yaml`, or a value is not what its tag says; in one line.
        OSError: it cannot be read.
    """
    text = plain_yaml(path)
    try:
        return yaml.safe_load(text)
    except Exception as error:  # a constructor raises whatever int(), date() and the like do
        raise ValueError(" ".join(str(error).split())) from error


def plain_yaml(path: str | Path) -> str:
    """Return the text of a YAML file, which has passed :func:`require_plain`.

    Raises:
        ValueError: it is too large, no UTF-8, or not plain; in one line.
        OSError: it cannot be read.
    """
    file = Path(path)
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file.stat().st_size:,} bytes, over the limit of {MAX_BYTES:,}")
    text = file.read_text(encoding="utf-8")
    require_plain(text)
    return text


def require_plain(text: str) -> None:
    """Refuse YAML that unfolds to more than stands in it, before anything is built of it: with aliases, a few lines make gigabytes.

    Raises:
        ValueError: it uses aliases, holds several documents, is nested more than :data:`MAX_DEPTH` deep, or is no YAML; in one line.
    """
    depth = documents = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            documents += isinstance(event, yaml.DocumentStartEvent)
            found = None
            if depth > MAX_DEPTH:
                found = f"nested more than {MAX_DEPTH} deep"
            elif documents > 1:
                found = "a second document"
            elif isinstance(event, yaml.AliasEvent):
                found = f"an alias, *{event.anchor}, where values must be written out"
            if found:
                raise ValueError(f"{found}, in line {event.start_mark.line + 1}" if event.start_mark else found)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
