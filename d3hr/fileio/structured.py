"""Reads small files of settings (YAML) and of results (JSON), as plain values, or raises an error that says what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, TypeAdapter, ValidationError, model_serializer

from d3hr.errors import DamagedFile, ResultsError, SettingsError, first_complaint
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
    """Return the validated content of a JSON file; numbers that JSON does not have (NaN, Infinity) are read as null.

    Raises:
        ResultsError: the file is missing, is not JSON, its checksum does not fit, or the content is of another type.
    """
    if not file.is_file():
        raise ResultsError(f"There is no {file}.", found="a folder without it" if file.parent.is_dir() else "no such folder", hint=hint)
    try:
        return adapter.validate_python(json.loads(json.dumps(read_json(file)), parse_constant=lambda _: None))
    except ValidationError as error:
        field, wrong, value = first_complaint(error)
        raise ResultsError(f"{file} is damaged.", found=f"{field}: {wrong}, got {value or 'nothing'}", hint=hint) from error
    except DamagedFile as error:
        raise ResultsError(f"{file} is damaged.", found=error.found, hint=hint) from error


def read_mapping(path: str | Path, what: str, hint: str) -> dict[str, Any]:
    """Return the mapping in a YAML file; arguments and errors are those of :func:`read_yaml`, and what is no mapping is refused too."""
    values = read_yaml(path, what, hint)
    if not isinstance(values, dict):
        raise SettingsError(f"The {what} {path} is not a mapping.", found=type(values).__name__, hint=hint)
    return values


def read_yaml(path: str | Path, what: str, hint: str, *, load: Callable[[str], Any] = yaml.safe_load) -> Any:
    """Return the plain values that ``load`` makes of a YAML file; messages call it ``what``, such as ``matrix``.

    Raises:
        SettingsError: the file cannot be read, is over :data:`MAX_BYTES`, is not UTF-8 or not plain (:func:`require_plain`), or a value
            is not what its tag says.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"{file.stat().st_size:,} bytes, over the limit of {MAX_BYTES:,}")
        text = file.read_text(encoding="utf-8")
        require_plain(text)
        return load(text)
    except OSError as error:
        raise SettingsError(f"The {what} {path} cannot be read.", found=error.strerror or str(error), hint="check the path.") from error
    except Exception as error:  # yaml's constructors raise whatever int(), date() and the like do
        found = " ".join(str(error).split())
        raise SettingsError(f"The {what} {path} is not YAML of plain values.", found=found, hint=hint) from error


def require_plain(text: str) -> None:
    """Refuse YAML that expands to more than its text, before any value is built: with aliases, a few lines make gigabytes.

    Raises:
        ValueError: it uses aliases, holds several documents, is nested more than :data:`MAX_DEPTH` deep, or is not YAML; in one line.
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
