"""Other names for the classes of a source, from a file: what labels such as 7 or n01440764 are called."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from d3hr.errors import DataError, SettingsError, listed
from d3hr.fileio.structured import MAX_BYTES, read_yaml

_HINT = 'write lines "label: name", or in a .txt file one name per line for the labels 0, 1, 2, ...'


def read_class_names(path: str | Path) -> dict[str, str]:
    """Return label -> name, both as text, from a file.

    A ``.txt`` file has one name per line, for the labels 0, 1, 2, ...; any other is YAML or JSON: a mapping, or a list likewise.

    Raises:
        SettingsError: the file cannot be read, or holds something else.
    """
    file = Path(path)
    if file.suffix.lower() == ".txt":
        try:
            text = file.read_bytes()[: MAX_BYTES + 1].decode("utf-8-sig")
        except (OSError, ValueError) as error:
            raise SettingsError(f"The file of class names {path} cannot be read.", found=str(error), hint=_HINT) from error
        values: Any = [line.strip() for line in text.rstrip().splitlines()]
    else:
        values = read_yaml(path, "file of class names", _HINT, load=lambda text: yaml.load(text, Loader=yaml.BaseLoader))
    names = dict(enumerate(values)) if isinstance(values, list) else values
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) and name for name in names.values()):
        odd = type(values).__name__ if not isinstance(values, list | dict) else "entries that are no names"
        raise SettingsError(f"The file of class names {path} holds no names.", found=odd, hint=_HINT)
    return {str(label): name for label, name in names.items()}


def renamed(class_names: tuple[str, ...], names: Mapping[str, str], source: object) -> tuple[str, ...]:
    """Return the names of all classes, in the order of the labels.

    Raises:
        DataError: a class has no name there, or two have the same.
    """
    missing = [name for name in class_names if name not in names]
    new = tuple(names.get(name, "") for name in class_names)
    twice = sorted({name for name in new if new.count(name) > 1})
    if missing or twice:
        raise DataError(
            f"The file of class names does not name every class of {source}.",
            found=f"no name for {listed(missing)}" if missing else f"several classes called {listed(twice)}",
            hint="give each class a name of its own there.",
        )
    return new
