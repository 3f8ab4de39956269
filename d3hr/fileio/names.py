"""Names of classes: which are hard to tell apart, and folders that are safe on any disk and for any loader."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from d3hr.formatting import composed

_UNSAFE = re.compile(r'[%/\\<>:"|?*\[\]\x00-\x1f\x7f]')
_SPLIT_WORD = re.compile(
    r"(?:(?<=^)|(?<=[-._ 0-9]))(?=(?:train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?:$|[-._ 0-9]))"
)
_MAX_BYTES = 180


def class_folders(class_names: Sequence[str]) -> dict[str, str]:
    """Return class name -> folder name, all different, also on a disk that ignores case.

    Characters with a meaning in paths or patterns become %XX, and so does the first letter of a word that Hugging Face ``datasets``
    would take for the name of a split ("test tube"). Names that are too long, or differ only in case, get a hash at the end.

    Raises:
        ValueError: a class name occurs twice.
    """
    if len(set(class_names)) < len(class_names):
        raise ValueError("class names must differ")
    folders = {name: _readable(name) for name in class_names}
    seen = Counter(_folded(folder) for folder in folders.values())
    return {
        name: folder if seen[_folded(folder)] == 1 and len(folder.encode()) <= _MAX_BYTES else _hashed(name, folder)
        for name, folder in folders.items()
    }


def composed_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return class names in Unicode's composed form, in which all parts of d3hr compare them; two that it makes equal stay as they are."""
    forms = [composed(name) for name in class_names]
    seen = Counter(forms)
    return tuple(form if seen[form] == 1 else name for form, name in zip(forms, class_names, strict=True))


def similar_names(class_names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of class names that differ only in case, spaces or how Unicode composes their characters."""
    groups = defaultdict(list)
    for name in class_names:
        groups[" ".join(_folded(name).split())].append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _readable(name: str) -> str:
    folder = _UNSAFE.sub(lambda match: _percent(match[0]), name)
    folder = re.sub(r"^(\.|__| )|[. ]$", lambda match: _percent(match[0]), folder)
    folder = _SPLIT_WORD.sub("\0", folder)
    folder = re.sub("\0(.)", lambda match: _percent(match[1]), folder)
    return folder or "%"


def _percent(characters: str) -> str:
    return "".join(f"%{byte:02X}" for byte in characters.encode())


def _hashed(name: str, folder: str) -> str:
    start = folder.encode()[: _MAX_BYTES - 20].decode(errors="ignore")
    return f"{start}~{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _folded(folder: str) -> str:
    return composed(folder).casefold()


def sibling(source: str, suffix: str) -> Path:
    """Return the default path of a result about a source: next to it and named after it; in the current folder for a Hub id."""
    path = Path(source)
    if not path.exists():
        return Path((path.name or "set") + suffix)
    path = with_a_name(path)
    return path.with_name(path.name + suffix)


def with_a_name(path: Path) -> Path:
    """Return a path that ends with the name of its folder, which ``.`` and ``..`` do not."""
    return path if path.name not in ("", "..") else path.resolve()
