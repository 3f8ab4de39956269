"""Loads the networks of a pretrained prior, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from d3hr.prior.autoencoder import CLASSES
from d3hr.prior.repository import Repository


def load_transformer(repository: Repository, dtype: torch.dtype) -> Any:
    """Return the ``DiTTransformer2DModel`` of a pipeline.

    Raises:
        PriorError: its files are missing, damaged or of another network.
    """
    from diffusers import DiTTransformer2DModel

    return _load(DiTTransformer2DModel, repository, "transformer", dtype)


def load_autoencoder(repository: Repository, dtype: torch.dtype) -> Any:
    """Return the autoencoder of a pipeline (in ``vae``) or of a repository of its own.

    Raises:
        PriorError: its files are missing, damaged or of another kind of network.
    """
    import diffusers

    part = autoencoder_part(repository.folder)
    kind = repository.json(f"{part}/config.json").get("_class_name")
    if kind not in CLASSES:
        raise repository.unusable(f"its autoencoder is of class {kind}; d3hr can use {', '.join(CLASSES[:-1])} and {CLASSES[-1]}")
    return _load(getattr(diffusers, kind), repository, part, dtype)


def autoencoder_part(folder: Path) -> str:
    """Return the folder of a repository's autoencoder: ``vae`` of a pipeline, or ``.``."""
    return "vae" if (folder / "vae").is_dir() else "."


def _load(kind: Any, repository: Repository, part: str, dtype: torch.dtype) -> Any:
    """Load one network; a file that lacks some of its weights is refused, where diffusers would draw them at random."""
    folder = repository.folder / part
    try:
        network, info = kind.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=repository.has_safetensors(part),
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise repository.unusable(f"{part}: {error}") from error
    if info["missing_keys"]:
        raise repository.unusable(f"{part} lacks {len(info['missing_keys'])} weights, such as {sorted(info['missing_keys'])[0]}")
    return network
