"""Matches the classes of a data set to those of a prior by name.

A class is never matched by its position among the folders: a loader numbers the classes of a folder from 0, so ten classes of ImageNet
would be generated as its first ten kinds of fish or bird, under the right names, and only a poor accuracy would show it. Nor is a class
ever guessed: a name that fits no class, or several, is an error that lists the nearest classes, because a wrong image costs more than a
line in a class map.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import yaml

from d3hr.errors import LISTED, ClassMismatch, SettingsError, listed
from d3hr.fileio.structured import read_yaml
from d3hr.prior.imagenet import attached_wnids, folded, folded_names, imagenet_labels, synonyms

How = Literal["class map", "exact name", "wnid", "label or synonym", "prompt", "nothing"]
_Match = tuple[str, How, Sequence[int]]
"""A class, what matched it, and the conditioning ids of the classes that it matches."""


@dataclass(frozen=True)
class Conditioning:
    """What a prior is given to generate one class of a data set, and how it was found."""

    class_name: str
    conditioning_id: int | None
    """The row of the prior's label table; None of a prior that has none."""
    prior_class: str
    """The prior's name for that row; the prompt for the class, of a prior that has text for classes; empty of one that has nothing."""
    how: How

    @property
    def key(self) -> int | str:
        """The row, or else the prompt."""
        return self.prior_class if self.conditioning_id is None else self.conditioning_id


def match_classes(
    class_names: Sequence[str],
    prior_classes: Sequence[str],
    *,
    of: str,
    prior: str = "the prior",
    class_map: Mapping[str, str] | None = None,
    allow_missing: bool = False,
) -> tuple[Conditioning, ...]:
    """Return the prior's class for each class of a data set, in the order of ``class_names``.

    The first of these ways that matches anything decides, even where a later one would match more:

    1. the class map: its value is a prior's class by any of the ways below or, if no class has that name, a conditioning id in digits;
    2. the exact name;
    3. the ImageNet wnid: the data set's ``n01440764`` is the prior's "tench, Tinca tinca" (see
       :func:`~d3hr.prior.imagenet.attached_wnids`), and its "tench" is the prior's ``n01440764``;
    4. the prior's whole label (or ImageNet's, for the same wnid) or one of the synonyms between its commas, ignoring case, surplus spaces,
       underscores or hyphens against spaces, and how Unicode composes its characters.

    Args:
        prior_classes: the prior's name of each conditioning id.
        of: name of the data set in messages.
        prior: name of the prior in messages.
        allow_missing: leave out classes that match no class of the prior, instead of refusing them.

    Raises:
        ClassMismatch: a class matches no class of the prior, or several; two classes reach the same one, not both through the class map;
            or the class map names a class that does not exist or an id out of range.
    """
    names = _PriorNames(prior_classes)
    mapped = _mapped_ids(class_map or {}, class_names, names, of, prior)
    matches: list[_Match] = [(name, "class map", [mapped[name]]) if name in mapped else (name, *names.lookup(name)) for name in class_names]
    if allow_missing:
        matches = [match for match in matches if match[2]]
    if wrong := _problems(matches, names, of, prior):
        raise ClassMismatch(
            of,
            class_names,
            prior,
            prior_classes,
            wrong=wrong,
            hint='rename the folders, or give --class-map FILE with lines "class: prior class" (or its conditioning id).',
        )
    return tuple(Conditioning(name, index, names.classes[index], how) for name, how, (index,) in matches)


def read_class_map(path: str | Path) -> dict[str, str]:
    """Return class -> prior's class from a YAML file of lines ``class: prior class``; all values are text, ``no`` or ``007`` included."""
    hint = 'write one line per class: "class: prior class", or "class: conditioning id".'
    node = read_yaml(path, "class map", hint, load=lambda text: yaml.compose(text, Loader=yaml.BaseLoader))
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    odd = [key.start_mark.line + 1 for key, value in pairs if not (_is_text(key) and _is_text(value))]
    if odd or not pairs:
        found = f"something else in line(s) {listed([str(line) for line in odd])}" if odd else "no line of that form"
        raise SettingsError(f"The class map {path} is not a mapping of class names to class names.", found=found, hint=hint)
    class_map = {key.value: value.value for key, value in pairs}
    if len(class_map) < len(pairs):
        keys = [key.value for key, _ in pairs]
        twice = [name for name in class_map if keys.count(name) > 1]
        raise SettingsError(
            f"The class map {path} names a class more than once.", found=listed(twice), hint="keep one line for each class."
        )
    return class_map


def _is_text(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and bool(node.value)


class _PriorNames:
    """The classes of a prior, by all the names that match them."""

    def __init__(self, classes: Sequence[str]) -> None:
        table = imagenet_labels()
        self.classes = tuple(classes)
        self.wnids = attached_wnids(self.classes)
        self._exact, self._by_wnid, self._by_label = (defaultdict[str, list[int]](list) for _ in range(3))
        for index, (name, wnid) in enumerate(zip(self.classes, self.wnids, strict=True)):
            label = table[wnid] if wnid else name
            own = label if name == wnid else name
            _append(self._exact, {name}, index)
            _append(self._by_wnid, {wnid} if wnid else set(), index)
            _append(self._by_wnid if name == wnid else self._by_label, folded_names(own) | {folded(label)} - {""}, index)

    @property
    def spellings(self) -> dict[str, str]:
        """Folded name -> a name that matches the class, for suggestions; other synonyms of ImageNet lead to the prior's name."""
        table = imagenet_labels()
        named = [(name, table[wnid]) for name, wnid in zip(self.classes, self.wnids, strict=True) if wnid]
        others = {folded(synonym): name for name, label in named for synonym in synonyms(label)}
        return others | {folded(synonym): synonym for name in self.classes for synonym in synonyms(table.get(name, name))}

    def lookup(self, name: str) -> tuple[How, Sequence[int]]:
        """Return the conditioning ids of all classes that a name matches, by the first way that matches any."""
        ways: list[tuple[How, Mapping[str, Sequence[int]], str]] = [
            ("exact name", self._exact, name),
            ("wnid", self._by_wnid, folded(name)),
            ("label or synonym", self._by_label, folded(name)),
        ]
        return next(((how, ids[key]) for how, ids, key in ways if key in ids), ("exact name", ()))

    def describe(self, index: int) -> str:
        """Return ``134 crane (n02012849)``, or ``0 n01440764 (tench, Tinca tinca)`` for a class whose name is its wnid."""
        name, wnid = self.classes[index], self.wnids[index]
        other = imagenet_labels()[name] if name == wnid else wnid
        return f"{index} {name} ({other})" if other else f"{index} {name}"

    def describe_all(self, ids: Sequence[int]) -> str:
        """Return the candidates of an ambiguous name, for a message."""
        return f"[{listed([self.describe(index) for index in ids])}]"


def _append(ids: dict[str, list[int]], names: Iterable[str], index: int) -> None:
    for name in names:
        ids[name].append(index)


def _mapped_ids(class_map: Mapping[str, str], class_names: Sequence[str], names: _PriorNames, of: str, prior: str) -> dict[str, int]:
    """Return class -> conditioning id, for the classes of the class map; each must exist, on either side, and match one class."""
    ours = {folded(name): name for name in class_names}
    wrong = [f"{of} has no class {_with_nearest(name, ours)}" for name in class_map if name not in class_names]
    spellings = names.spellings if class_map else {}
    mapped = {}
    for name, value in class_map.items():
        _, ids = names.lookup(value)
        if not ids and re.fullmatch("[0-9]{1,9}", value):
            ids = [int(value)]
        if not ids:
            wrong.append(f"{name}: {prior} has no class {_with_nearest(value, spellings)}")
        elif len(ids) > 1:
            wrong.append(f"{name}: {value} could be {names.describe_all(ids)}")
        elif ids[0] >= len(names.classes):
            wrong.append(f"{name}: the conditioning ids of {prior} run from 0 to {len(names.classes) - 1}, not to {value}")
        else:
            mapped[name] = ids[0]
    if wrong:
        raise ClassMismatch(
            of,
            class_names,
            prior,
            names.classes,
            wrong=[f"The class map does not fit {of} and {prior}:", *wrong],
            hint='correct the lines "class: prior class" of --class-map; a conditioning id may take the place of a prior class.',
        )
    return mapped


def _problems(matches: Sequence[_Match], names: _PriorNames, of: str, prior: str) -> list[str]:
    """Return a sentence on the classes that match nothing, one on those that match several, one on those that share their match."""
    unknown = [name for name, _, ids in matches if not ids]
    spellings = names.spellings if unknown else {}
    nothing = [_with_nearest(name, spellings) for name in unknown[:LISTED]] + unknown[LISTED:]
    several = [f"{name} {names.describe_all(ids)}" for name, _, ids in matches if len(ids) > 1]
    reached = defaultdict(list)
    for name, how, ids in matches:
        if len(ids) == 1:
            reached[ids[0]].append((name, how))
    shared = [
        f"{' and '.join(name for name, _ in users)} [{names.describe(index)}]"
        for index, users in reached.items()
        if len(users) > 1 and any(how != "class map" for _, how in users)
    ]
    return [
        sentence
        for classes, sentence in (
            (nothing, f"{len(nothing)} class(es) of {of} are not classes of {prior}: {listed(nothing)}."),
            (several, f"{len(several)} class(es) of {of} could be several classes of {prior}: {listed(several)}."),
            (shared, f"{len(shared)} class(es) of {prior} are reached by several classes of {of}: {listed(shared)}."),
        )
        if classes
    ]


def _with_nearest(name: str, spellings: Mapping[str, str]) -> str:
    """Return ``zebre -> zebra?``, or the bare name where no other is similar; a wnid is looked up by its first synonym."""
    label = imagenet_labels().get(name)
    wanted = folded(synonyms(label)[0] if label else name)
    similar = [wanted] if wanted in spellings else get_close_matches(wanted, spellings, cutoff=0.7)
    near = dict.fromkeys(spellings[other] for other in similar)
    shown = f"{name} ({label})" if label else name
    return f"{shown} -> {' or '.join(near)}?" if near else shown
