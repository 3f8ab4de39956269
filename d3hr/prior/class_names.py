"""What a prior on disk calls its classes."""

from __future__ import annotations

from pathlib import Path

from d3hr.prior.repository import Repository


def class_names_of(path_or_hub_id: str | Path) -> tuple[str, ...]:
    """Return the class names of a prior without loading, or downloading, its weights.

    Raises:
        PriorError: there is no such prior, or it is not a DiTPipeline.
    """
    return class_names_in(Repository(str(path_or_hub_id), ()))


def class_names_in(repository: Repository) -> tuple[str, ...]:
    """Return the class names of the prior in a repository; where it gives none, their numbers.

    Raises:
        PriorError: it is not a DiTPipeline.
    """
    index = repository.json("model_index.json")
    if index.get("_class_name") != "DiTPipeline":
        raise repository.unusable(f"its pipeline class is {index.get('_class_name')}, not DiTPipeline")
    labels = index.get("id2label")
    if not labels:
        return tuple(str(number) for number in range(repository.json("transformer/config.json")["num_embeds_ada_norm"]))
    return tuple(labels[key] for key in sorted(labels, key=int))
