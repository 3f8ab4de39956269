"""Recognises models that were distilled to one step or a few: they jump to an image, so that there is no path to invert."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from d3hr.errors import PriorError
from d3hr.prior.repository import Repository

_NAMES = re.compile(r"turbo|lightning|lcm|hyper-?sd|schnell|instaflow|one-?step|consistency", re.IGNORECASE)
"""What such models have in their names on the Hub."""
_SCHEDULERS = ("LCMScheduler", "TCDScheduler", "CMStochasticIterativeScheduler")
_PIPELINE = "Consistency"
"""What the names of diffusers' pipelines for such models have in common."""


def require_path(repository: Repository) -> None:
    """Refuse such a model, by its name on the Hub, its card, its scheduler, its pipeline, or what its network is given."""
    reasons = list(_reasons(repository))
    if reasons:
        raise PriorError(
            f"{repository.name} was distilled to one step or a few: it jumps to an image, so there is no path to invert.",
            found=", ".join(reasons),
            hint="use the model that it was distilled from.",
        )


def _reasons(repository: Repository) -> Iterator[str]:
    if not Path(repository.name).is_dir() and _NAMES.search(repository.name.rsplit("/", 1)[-1]):
        yield f"the name {repository.name}"
    if words := _of_card(repository):
        yield f"{words!r} in its README.md"
    if _PIPELINE in repository.pipeline:
        yield f"a {repository.pipeline}"
    if (scheduler := _of(repository, "scheduler/scheduler_config.json", "_class_name")) in _SCHEDULERS:
        yield f"a {scheduler}"
    if any(_of(repository, f"{part}/config.json", "time_cond_proj_dim") is not None for part in ("unet", "transformer")):
        yield "a network that is given the guidance scale (time_cond_proj_dim)"


def _of(repository: Repository, file: str, key: str) -> object:
    return repository.json(file).get(key) if (repository.folder / file).is_file() else None


def _of_card(repository: Repository) -> str | None:
    """Return what tells in a card: its first heading or the base model, since a copy in a folder may have any name."""
    about, text = repository.card
    heading = next((line.strip("# ") for line in text.splitlines() if line.startswith("# ")), "")
    base = about.get("base_model") or ()
    said = (heading, *(map(str, base) if isinstance(base, list | tuple) else [str(base)]))
    return next((each for each in said if _NAMES.search(each)), None)
