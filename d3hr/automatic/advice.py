"""The one thing that helps a person most after a choice."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch

from d3hr.data.dataset import ImageData
from d3hr.evaluation.choice import Choice
from d3hr.evaluation.confidence import cross_validated_probabilities, doubtful

FEW_HELD_OUT = 100
"""Images held out below which hardly any difference between two sets can be seen."""
DOUBTFUL, SURE = 0.05, 0.8
"""Share of images that look like another class from which on labels may be wrong, where networks name at least so many right."""
ENOUGH = 0.9
"""Share of the accuracy of all the images with which a set is good."""


def next_step(choice: Choice, training: ImageData, shared: Path, out: str) -> str:
    """Return what to do next, in a sentence: about too few images, wrong labels, more images per class, or the use of the set.

    Args:
        choice: what was chosen.
        training: the images that it was chosen from.
        shared: the folder that keeps what networks think of each image.
        out: the set.
    """
    if choice.held_out < FEW_HELD_OUT:
        return (
            f"Add images: {choice.held_out} held-out ones can hardly tell two sets apart. With fewer than "
            f"{FEW_HELD_OUT} of them, compare by eye, too."
        )
    wrong = _doubtful(training, shared)
    if wrong:
        what = f"{wrong} of {len(training):,} images look like another class"
        if training.in_memory:
            return f"Look at the labels: {what}. d3hr.diagnose(d3hr.DistilledSet.load({out!r}), images) says more."
        return f"Look at the labels: {what}. 'd3hr diagnose {shlex.quote(out)}' says more."
    most = min(training.counts.values())
    if choice.full_accuracy and choice.winner.mean < ENOUGH * choice.full_accuracy and choice.ipc < most:
        ipc = min(2 * choice.ipc, most)
        more = f"{out}-{ipc}"
        again = f"d3hr distill {shlex.quote(choice.source)} --ipc {ipc} --out {shlex.quote(more)}"
        if training.in_memory:
            again = f"d3hr.distill(images, ipc={ipc}, out={more!r})"
        return f"Take more images per class, which is what raises the accuracy most: {again}"
    return "Use the set: examples/train_on_distilled.py trains a network on it without d3hr."


def _doubtful(training: ImageData, shared: Path) -> int:
    """Return how many images look like another class to networks that did not learn from them, if they are good enough to be asked.

    0 where no such networks were trained.
    """
    if not any(shared.glob("probabilities-*")):
        return 0
    probabilities = cross_validated_probabilities(training, shared)
    right = torch.cat([rows.argmax(dim=1) == label for label, rows in enumerate(probabilities.values())])
    found = sum(int(flags.sum()) for flags in doubtful(probabilities).values())
    return found if right.float().mean() >= SURE and found >= DOUBTFUL * len(training) else 0
