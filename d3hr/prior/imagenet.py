"""The 1000 classes of ImageNet, by which names that other people gave a class can be tied to one meaning.

``imagenet_classes.tsv`` holds a line ``wnid<TAB>label`` for each class, in the order of ILSVRC-2012 (sorted by wnid). A *wnid* is
"n" with the eight digits of a WordNet noun, a *label* its synonyms joined by commas: ``n01440764``, ``tench, Tinca tinca``. Labels do
not tell all classes apart ("crane" is a bird as well as a machine); wnids do.

Identifiers and labels are from WordNet 3.0, Copyright 2006 by Princeton University, all rights reserved, used under the WordNet licence
(https://wordnet.princeton.edu/license-and-commercial-use), which comes without any warranty.
"""

from __future__ import annotations

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
    """Return the names that a label lists between commas, as they are written there."""
    return tuple(name for name in (part.strip() for part in label.split(",")) if folded(name))


def folded(label: str) -> str:
    """Return a label as it is compared: Unicode NFC, case folded, single spaces in place of underscores, hyphens or many spaces."""
    plain = unicodedata.normalize("NFC", label).casefold().replace("_", " ").replace("-", " ")
    return ", ".join(name for name in (" ".join(part.split()) for part in plain.split(",")) if name)


def folded_names(label: str) -> frozenset[str]:
    """Return all that a label answers to: itself as a whole, or any of its synonyms, folded."""
    return frozenset({folded(label), *map(folded, synonyms(label))} - {""})


def attached_wnids(classes: Sequence[str]) -> tuple[str | None, ...]:
    """Return the wnid of each class of a prior, None where none is certain.

    A class called by a wnid has that wnid. A wnid belongs to the class that has its whole label, otherwise to the class that shares a
    synonym with it; either way only if no other wnid or class would do as well. What is left ("crane") is told by position, but only
    among 1000 classes most of which have a wnid by name, every one of them at its place in ILSVRC-2012; even there the class must share
    a name with the wnid at its position.

    Args:
        classes: name of each class, in the order of the conditioning ids.
    """
    table = imagenet_labels()
    wnids = list(table)
    labels = [table.get(name, name) for name in classes]
    ours, theirs = [folded_names(label) for label in labels], [folded_names(label) for label in table.values()]
    place = _only_partners(ours, theirs)
    place |= _only_partners([{folded(label)} for label in labels], [{folded(label)} for label in table.values()])
    place |= {index: wnids.index(name) for index, name in enumerate(classes) if name in table}
    if len(classes) == len(table) < 2 * len(place) and all(index == there for index, there in place.items()):
        place |= {index: index for index in range(len(classes)) if ours[index] & theirs[index]}
    return tuple(wnids[place[index]] if index in place else None for index in range(len(classes)))


def _only_partners(ours: Sequence[Collection[str]], theirs: Sequence[Collection[str]]) -> dict[int, int]:
    """Return position in ``ours`` -> position in ``theirs``, for pairs that share a name with each other but with nobody else."""
    our_partners, their_partners = _sharing(ours, theirs), _sharing(theirs, ours)
    return {index: there for index, (there, *more) in our_partners.items() if not more and len(their_partners[there]) == 1}


def _sharing(ours: Sequence[Collection[str]], theirs: Sequence[Collection[str]]) -> dict[int, set[int]]:
    holders = defaultdict(set)
    for there, names in enumerate(theirs):
        for name in names:
            holders[name].add(there)
    partners = {index: {there for name in names for there in holders.get(name, ())} for index, names in enumerate(ours)}
    return {index: found for index, found in partners.items() if found}
