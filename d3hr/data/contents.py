"""Finds the same picture several times: within a class, in two classes, in training and in test images.

Pictures are the same if their encoded contents are, byte for byte. Legend: N images of a source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d3hr.data.sources import Source
from d3hr.errors import SettingsError

_Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Contents:
    """What is the same among N images.

    Attributes:
        digests: the first 64 bits of each image's SHA-256, [N]: two of a million images agree by chance once in 37 million data sets.
        repeats: indices of images that their class has already.
        known: whether the images were decoded; otherwise only headers were read, and nothing was looked for.
        contradictions: for each picture that several classes have, the indices of its images.
    """

    digests: _Indices
    repeats: _Indices
    contradictions: tuple[tuple[int, ...], ...]
    known: bool = True

    @property
    def required(self) -> Contents:
        """These contents.

        Raises:
            SettingsError: the images were not decoded.
        """
        if not self.known:
            raise SettingsError("The images were not decoded.", found="their headers alone are known", hint="open them with verify=True.")
        return self

    @classmethod
    def of(cls, digests: _Indices, labels: _Indices, order: _Indices) -> Contents:
        """Compare images.

        Args:
            digests: the first 8 bytes of the SHA-256 of each image, [N]; 0 for those that cannot be read.
            labels: the class of each image.
            order: indices of the images that are compared.
        """
        values = np.sort(digests[order])
        several = np.unique(values[1:][values[1:] == values[:-1]])
        del values
        nearest = np.searchsorted(several, digests[order]).clip(max=max(len(several) - 1, 0))
        places = np.flatnonzero(several[nearest] == digests[order]) if len(several) else nearest[:0]
        del nearest
        pictures, classes = digests[order[places]], labels[order[places]]
        by_picture = np.lexsort((places, classes, pictures))
        same_picture = pictures[by_picture][1:] == pictures[by_picture][:-1]
        same_class = same_picture & (classes[by_picture][1:] == classes[by_picture][:-1])
        repeats = order[np.sort(places[by_picture[1:][same_class]])]
        groups = np.concatenate([[0], np.cumsum(~same_picture)])[: len(places)]
        contradictory = np.unique(groups[1:][same_picture & ~same_class])
        found = [np.sort(places[by_picture[slice(*np.searchsorted(groups, [group, group + 1]))]]) for group in contradictory]
        return cls(digests, repeats, tuple(tuple(order[group].tolist()) for group in sorted(found, key=lambda group: int(group[0]))))

    @classmethod
    def not_looked_for(cls) -> Contents:
        """Return the contents of images that were not decoded."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), (), known=False)

    def remarks(self, images: Source, *, kept: bool) -> tuple[str, ...]:
        """Return what is to be said, a line each; ``kept`` tells whether repeats are kept all the same."""
        lines = []
        if len(self.repeats):
            what = "counted each time" if kept else "left out: an image counts once in its class"
            lines.append(f"{len(self.repeats)} exact duplicate(s) within a class, such as {images.name(int(self.repeats[0]))}, {what}")
        if self.contradictions:
            places = " and ".join(images.name(index) for index in self.contradictions[0][:2])
            count = len(self.contradictions)
            lines.append(f"{count} picture(s) in several classes, such as {places}: not all of their labels can be right")
        return tuple(lines)
