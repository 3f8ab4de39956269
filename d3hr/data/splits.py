"""Recognises the folders of splits, whatever they are called, so that no test image is taken for one to train on.

They lie around the class folders (``train/cat``, ``Test/cat``) or below them (``cat/train``, ``cat/test``).
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from d3hr.data.listing import folders_in, has_images_in, holds_images, images_in
from d3hr.errors import DataError, listed, printable
from d3hr.formatting import composed

_KINDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The words of a split, those of Hugging Face ``datasets`` -> its kind."""
_AFFIXES = r"images?|imgs?|set|data|dataset|split|folder|pictures|photos|samples|\d+"
_WORD = re.compile(rf"({'|'.join(sorted(_KINDS, key=len, reverse=True))})({_AFFIXES})?")


class Splits(NamedTuple):
    """The folders of splits in a folder, and what is left out next to them."""

    folders: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def split_kinds(names: Iterable[str]) -> dict[str, str]:
    """Return name -> ``"train"``, ``"validation"`` or ``"test"``, for the names that mean a split.

    Case does not matter, and words such as "images" or numbers may be around the split's. Any other words may be, where several names
    share them: ``pets-train`` and ``pets-test``, but not ``test tube``.
    """
    found: dict[str, tuple[str, str]] = {}
    for name in names:
        words = re.findall(r"[a-z]+|\d+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
        splits = [match for word in words if (match := _WORD.fullmatch(word))]
        if len(splits) == 1:
            rest = [word for word in words if word != splits[0][0] and not re.fullmatch(_AFFIXES, word)]
            found[name] = _KINDS[splits[0][1]], " ".join(rest)
    alike = {rest: {kind for kind, other in found.values() if other == rest} for _, rest in found.values()}
    return {name: kind for name, (kind, rest) in found.items() if not rest or len(alike[rest]) > 1}


def chosen_split(source: object, names: Sequence[str], split: str | None) -> str:
    """Return the one of ``names`` that ``split`` means, by its name or kind; by default, the split to train on.

    Raises:
        DataError: none or several are meant.
    """
    if split in names:
        return str(split)
    kinds = split_kinds(names)
    wanted = "train" if split is None else split_kinds([split]).get(split)
    fitting = [name for name in names if kinds.get(name, name) == wanted]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(f"Which split of {source} is meant is not clear.", found=listed(fitting), hint="name one of these with --split.")
    raise DataError(
        f"{source} has no split {split!r}." if split else f"{source} has splits, but none to train on.",
        found=f"splits: {listed(names) or 'none'}",
        hint="leave --split out, or name one of these."
        if split
        else "name one of these with --split; if they are classes, rename the folders.",
    )


def held_out_split(splits: Iterable[str], used: str | None, *kinds: str) -> str | None:
    """Return the name of another split than the one that is ``used``, of the first of ``kinds`` that there is; None where there is none."""
    of_kind = {kind: name for name, kind in split_kinds(splits).items() if name != used}
    return next((of_kind[kind] for kind in kinds if kind in of_kind), None)


def splits_around(folder: Path, split: str | None) -> Splits | None:
    """Return the folders of splits directly in a folder; None where its folders are classes.

    Folders are splits if they are called so and hold the same class folders.

    Raises:
        DataError: they hold other class folders, or none, and ``split`` does not say which of them to read.
    """
    folders = {entry.name: entry for entry in folders_in(folder)}
    kinds = split_kinds(folders)
    classes = {name: frozenset(composed(entry.name) for entry in folders_in(folders[name]) if holds_images(entry)) for name in kinds}
    splits = [name for name in folders if classes.get(name)]
    loose = [name for name in kinds if not classes[name] and has_images_in(folders[name])]
    others = [name for name in folders if name not in kinds and holds_images(folders[name])]
    if not splits and (others or len(loose) < 2):
        return None
    if not splits:
        _ask(
            folder, [f"{name} ({sum(1 for _ in images_in(folders[name]))} images)" for name in loose], "put class folders into each of them"
        )
    if others and len({kinds[name] for name in splits}) == 1:
        if any(has_images_in(folders[name]) for name in splits):
            return None
        if split is None:
            shown = [*(f"{name} ({_few(classes[name])})" for name in splits), *others]
            _ask(folder, shown, f"read one alone with --split {splits[0]}")
    if split is None and len({classes[name] for name in splits}) > 1:
        _ask(folder, [f"{name} ({_few(classes[name])})" for name in splits], f"read one alone with --split {splits[0]}")
    left_out = [f"{name}/: no {'split' if name in others else 'images'}" for name in folders if name not in kinds]
    left_out += [f"{name}/: its images are in no class folders" for name in loose]
    return Splits(tuple(splits), tuple(map(printable, left_out)))


def splits_below(source: object, inner: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Return the kinds of splits that lie below every class folder; nothing where none do.

    Args:
        source: where they lie, for messages.
        inner: class -> the different folders in the class folder in or below which it has images, empty for itself; one at least.

    Raises:
        DataError: some class folders hold several splits, but not all alike.
    """
    kinds = {name: split_kinds(parts) for name, parts in inner.items()}
    found = {name: frozenset(kinds[name].values()) for name in inner}
    if not any(found.values()):
        return ()
    whole = all(set(kinds[name]) == set(inner[name]) for name in inner)
    if whole and len(set(found.values())) == 1:
        return tuple(sorted(next(iter(found.values()))))
    mixed = [f"{name} ({_few(kinds[name])})" for name in inner if len(found[name]) > 1]
    if mixed:
        _ask(source, mixed, "put the same splits, and nothing else, into every class folder")
    return ()


def split_of(folder: str) -> str | None:
    """Return the kind of the split that a folder in a class folder is."""
    return split_kinds([folder]).get(folder)


def _ask(source: object, seen: Sequence[str], how: str) -> NoReturn:
    raise DataError(
        f"Whether folders of {source} are splits or classes is not clear.",
        found=printable(listed(seen)),
        hint=f"if they are splits, {how}; if they are classes, rename the folders that are called like splits.",
    )


def _few(names: Iterable[str]) -> str:
    return listed(sorted(names), limit=3)
