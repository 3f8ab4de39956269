"""The 1000 classes of ImageNet, which connect the different names that people use for the same class.

``imagenet_classes.tsv`` holds a line ``wnid<TAB>label`` for each class, in the order of ILSVRC-2012 (sorted by wnid). A *wnid* is
"n" with the eight digits of a WordNet noun, a *label* its synonyms joined by commas: ``n01440764``, ``tench, Tinca tinca``. Labels are
not unique ("crane" is a bird as well as a machine); wnids are.

Identifiers and labels are from WordNet 3.0, Copyright 2006 by Princeton University, all rights reserved, used under the WordNet licence
(https://wordnet.princeton.edu/license-and-commercial-use), which comes without any warranty.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import cache
from importlib import resources


@cache
def imagenet_labels() -> dict[str, str]:
    """Return wnid -> label of the 1000 classes, in the order of ILSVRC-2012."""
    table = resources.files("d3hr.prior").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    return dict(line.split("\t") for line in table.splitlines())


def synonyms(label: str) -> tuple[str, ...]:
    """Return the names that a label lists between commas, as they are written there, without empty ones."""
    return tuple(name for name in (part.strip() for part in label.split(",")) if folded(name))


def folded(label: str) -> str:
    """Return the form of a label that comparisons use: Unicode NFC, case folded, one space for underscores, hyphens or several spaces."""
    plain = unicodedata.normalize("NFC", label).casefold().replace("_", " ").replace("-", " ")
    return ", ".join(name for name in (" ".join(part.split()) for part in plain.split(",")) if name)


def folded_names(label: str) -> frozenset[str]:
    """Return the folded names that match a label: the whole label, and each of its synonyms."""
    return frozenset({folded(label), *map(folded, synonyms(label))} - {""})


def attached_wnids(classes: Sequence[str]) -> tuple[str | None, ...]:
    """Return the wnid of each class of a prior, in the order of the conditioning ids; None where none is certain.

    A class whose name is a wnid has that wnid. Otherwise a wnid belongs to the class that has its whole label, or else to the class that
    shares a synonym with it; in both cases only if no other wnid or class matches as well. Classes that are still ambiguous ("crane") are
    matched by position, but only where there are 1000 classes, most of them matched by name, all of those at their position in ILSVRC-2012,
    and the class shares a name with the wnid at its position.
    """
    table = imagenet_labels()
    wnids = list(table)
    labels = [table.get(name, name) for name in classes]
    ours, theirs = [folded_names(label) for label in labels], [folded_names(label) for label in table.values()]
    position = _only_partners(ours, theirs)
    position |= _only_partners([{folded(label)} for label in labels], [{folded(label)} for label in table.values()])
    position |= {index: wnids.index(name) for index, name in enumerate(classes) if name in table}
    if len(classes) == len(table) < 2 * len(position) and all(index == there for index, there in position.items()):
        position |= {index: index for index in range(len(classes)) if ours[index] & theirs[index]}
    return tuple(wnids[position[index]] if index in position else None for index in range(len(classes)))


def _only_partners(ours: Sequence[Collection[str]], theirs: Sequence[Collection[str]]) -> dict[int, int]:
    """Return position in ``ours`` -> position in ``theirs``, for pairs that share a name with each other and with no other entry."""
    our_partners, their_partners = _sharing(ours, theirs), _sharing(theirs, ours)
    return {index: there for index, (there, *more) in our_partners.items() if not more and len(their_partners[there]) == 1}


def _sharing(ours: Sequence[Collection[str]], theirs: Sequence[Collection[str]]) -> dict[int, set[int]]:
    """Return position in ``ours`` -> positions in ``theirs`` that share a name with it, where there are any."""
    holders = defaultdict(set)
    for there, names in enumerate(theirs):
        for name in names:
            holders[name].add(there)
    partners = {index: {there for name in names for there in holders.get(name, ())} for index, names in enumerate(ours)}
    return {index: positions for index, positions in partners.items() if positions}
