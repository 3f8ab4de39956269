"""Other names for the classes of a source, from a file or list: what labels such as 7 or n01440764 are called."""

from collections.abc import Mapping, Sequence
from pathlib import Path

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
        names = {str(label): line.strip() for label, line in enumerate(text.rstrip().splitlines())}
    else:
        node = read_yaml(path, "file of class names", _HINT, load=lambda text: yaml.compose(text, Loader=yaml.BaseLoader))
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        pairs = [(str(label), each) for label, each in enumerate(node.value)] if isinstance(node, yaml.SequenceNode) else pairs
        names = {_text(label): _text(name) for label, name in pairs}
        if len(names) < len(pairs):
            raise SettingsError(f"The file of class names {path} names a label twice.", found=f"{len(pairs)} lines", hint=_HINT)
    if not names or not all(names) or not all(names.values()):
        found = "entries that are no names" if names else "no line of that form"
        raise SettingsError(f"The file of class names {path} holds no names.", found=found, hint=_HINT)
    return names


def names_of_labels(given: str | Path | Sequence[str]) -> dict[str, str]:
    """Return label -> name, both as text, of a file of :func:`read_class_names`, or of a list of the names of 0, 1, 2, ..."""
    return read_class_names(given) if isinstance(given, str | Path) else {str(label): name for label, name in enumerate(given)}


def names_in_order(given: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Return the names of the labels 0, 1, 2, ... of a list, of the text of one (``[a, b]``), or of a file of :func:`read_class_names`.

    Raises:
        SettingsError: it is no such list or file, or labels of the file are not these numbers.
    """
    if isinstance(given, str) and given.startswith("["):
        try:
            node = yaml.compose(given, Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            raise SettingsError("The class names are no list.", found=given, hint="write '[a, b, ...]', or give a file.") from error
        return tuple(_text(name) for name in node.value) if isinstance(node, yaml.SequenceNode) else ()
    if not isinstance(given, str | Path):
        return tuple(given)
    names = read_class_names(given)
    order = [str(label) for label in range(len(names))]
    if set(order) != set(names):
        found = f"labels such as {listed([label for label in names if label not in order][:3])}"
        raise SettingsError(f"The file of class names {given} does not say which output is which class.", found=found, hint=_HINT)
    return tuple(names[label] for label in order)


def _text(node: str | yaml.Node) -> str:
    """Return the text of a node; empty for one that is none. Numbers, ``no`` and ``007`` are text here."""
    return node if isinstance(node, str) else str(node.value) if isinstance(node, yaml.ScalarNode) else ""


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
            f"The class names do not name every class of {source}.",
            found=f"no name for {listed(missing)}" if missing else f"several classes called {listed(twice)}",
            hint="give each class a name of its own.",
        )
    return new
