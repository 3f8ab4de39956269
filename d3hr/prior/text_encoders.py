"""The text encoders of a diffusers pipeline: loaded when a prompt is to be encoded, and never together with what is done afterwards."""

from __future__ import annotations

import hashlib
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from d3hr.fileio.atomic import explained
from d3hr.prior.adapters import Adapter
from d3hr.prior.quiet import quiet
from d3hr.prior.repository import Repository, load_network, weight_files

_ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")
_ABOUT = (".json", ".txt", ".model")
"""Suffixes of the files of an encoder or tokenizer that hold no weights."""


class TextEncoders:
    """The text encoders and tokenizers that a pipeline lists, of which nothing is in memory.

    Args:
        repository: the pipeline.
        optional: encoders that a copy of it may lack.
    """

    def __init__(self, repository: Repository, optional: tuple[str, ...] = ()) -> None:
        self._repository = repository
        self.index = repository.json("model_index.json")
        """The pipeline's ``model_index.json``."""
        listed = [part for part in sorted(self.index) if part.startswith("text_encoder") and self._class_name(part)]
        self.adapter: Adapter | None = None
        """What is folded into the encoders that it has something for."""
        self.names = tuple(part for part in listed if part not in optional or (repository.folder / part).is_dir())
        """The parts of the pipeline that are text encoders, in order."""

    def load(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """Return encoders and tokenizers, by the names of their parts.

        Raises:
            PriorError: one is missing, is damaged or of a class that d3hr does not use.
        """
        parts: dict[str, Any] = {}
        with quiet():
            for encoder in self.names:
                tokenizer = _tokenizer_of(encoder)
                network = load_network(self._class(encoder, _ENCODERS), self._repository, encoder, dtype)
                if self.adapter and self.adapter.adapts(encoder):
                    self.adapter.fuse_encoder(network, encoder)
                parts[encoder] = network.eval().to(device)
                try:
                    parts[tokenizer] = self._class(tokenizer, _TOKENIZERS).from_pretrained(self._repository.folder / tokenizer)
                except (OSError, ValueError, TypeError) as error:
                    raise self._repository.unusable(f"{tokenizer}: {error}") from error
        return parts

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the encoders' weight files, of which none is loaded, and what an adapter has for them."""
        digest = hashlib.sha256(((self.adapter and self.adapter.encoders_fingerprint) or "").encode())
        for file in (file for part in self.names for file in self._weight_files(part)):
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()

    def copy(self, folder: Path) -> dict[str, Any]:
        """Copy encoders and tokenizers into the folder of a pipeline, and return what its ``model_index.json`` says of all its parts.

        Parts that are not copied, such as a safety checker, are listed as absent.
        """
        parts = [*self.names, *map(_tokenizer_of, self.names)]
        with explained(folder):
            for part in parts:
                weights = self._weight_files(part) if part in self.names else []
                (folder / part).mkdir(parents=True, exist_ok=True)
                for file in sorted((self._repository.folder / part).iterdir()):
                    if file in weights or file.suffix in _ABOUT:
                        shutil.copyfile(file, folder / part / file.name)
        if self.adapter and self.adapter.encoders_fingerprint:
            for part, network in self.load(torch.float32, torch.device("cpu")).items():
                if self.adapter.adapts(part):
                    network.save_pretrained(folder / part)
        about = {name: value for name, value in self.index.items() if not name.startswith("_")}
        absent = {name: [None, None] for name, value in about.items() if isinstance(value, list) and name not in parts}
        return {**about, **absent, **({"requires_safety_checker": False} if "requires_safety_checker" in about else {})}

    def _weight_files(self, part: str) -> list[Path]:
        self._repository.fetch(part)
        return weight_files(self._repository.folder / part)

    def _class_name(self, part: str) -> str | None:
        _, kind = self.index.get(part) or (None, None)
        return kind

    def _class(self, part: str, usable: tuple[str, ...]) -> Any:
        import transformers

        kind = self._class_name(part)
        if kind not in usable:
            raise self._repository.unusable(f"its {part} is of class {kind}; d3hr can use {', '.join(usable)}")
        return getattr(transformers, kind)


def _tokenizer_of(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")
