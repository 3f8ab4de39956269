"""Finds, loads and writes a pretrained model: its files lie in a folder, or in a snapshot of a Hugging Face Hub repository."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import Field

from d3hr.errors import PriorError
from d3hr.fileio.atomic import explained, write_bytes, write_json
from d3hr.fileio.structured import Record
from d3hr.prior.autoencoder import AUTOENCODERS

_KNOWN_LICENCES = {"facebook/DiT-XL-2-256": "cc-by-nc-4.0", "facebook/DiT-XL-2-512": "cc-by-nc-4.0"}
"""Licences that a repository's card does not name (github.com/facebookresearch/DiT, LICENSE.txt)."""


_ABOUT = ["*.json", "*.txt", "*.model", "README.md"]
"""Files that hold no weights; a star of the Hub's client matches folders too."""
_OTHER_WEIGHTS = ["*.fp16.*", "*.fp16-*", "*.non_ema.*", "*.ema_only.*"]
"""Files that hold the same weights once more, in another precision or of training."""


class PriorRecord(Record):
    """What a manifest says of the prior that a set was made with; nothing, where it was made with none."""

    source: str | None = None
    """Folder or Hub id; None of a prior that was in memory only."""
    fingerprint: str | None = None
    """As :attr:`~d3hr.prior.model.Prior.fingerprint`."""
    precision: str | None = None
    """One of :data:`~d3hr.prior.model.PRECISIONS`."""
    autoencoder: str | None = None
    """Folder or Hub id of the autoencoder, if it is not the prior's own."""
    licence: str | None = None
    """SPDX-like id of the licence of the weights, as far as it is known."""
    bytes: int = Field(default=0, ge=0)
    """Bytes of all weights, in that precision."""
    prompt: str | None = None
    """Template of the prompts of classes, if it is not the usual one; the prompts themselves are with the classes."""
    negative_prompt: str | None = None
    """What guidance leads away from, if it is not the usual."""
    lora: str | None = None
    """Folder or Hub id of an adapter that is folded into the weights."""
    text_encoders: str | None = None
    """SHA-256 over the weight files of the text encoders; None of a prior that has none."""


@dataclass(frozen=True)
class Variant:
    """In what a prior differs from the repository that it is loaded from."""

    autoencoder: str | None = None
    """Folder or Hub id of the autoencoder, if it is not the repository's own."""
    prompt: str | None = None
    """Template of the prompts, with ``{name}``, of a text-to-image prior."""
    negative_prompt: str | None = None
    """What guidance leads away from, of a text-to-image prior."""
    lora: str | None = None
    """Folder or Hub id of an adapter that is folded into the weights of a text-to-image prior."""


class Repository:
    """The files of one pretrained model, in ``folder``; those of a Hub repository are downloaded, or found in the Hub's cache.

    Args:
        name: a folder, a checkpoint that is one file, which ``folder`` then is, or a Hub id such as ``facebook/DiT-XL-2-256``;
            ``HF_HUB_OFFLINE`` and the Hub's cache are honoured.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_file = Path(name).is_file()
        self._local = self.is_file or Path(name).is_dir()
        if not self._local and (Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1):
            raise PriorError(
                f"There is no prior at {name}.",
                found="no such folder or file",
                hint="fit one with 'd3hr fit DATA --out PRIOR', or name a Hub id.",
            )
        self.folder = Path(name) if self._local else self._snapshot(_ABOUT)

    def fetch(self, part: str) -> None:
        """Have the weights of a part in the folder, which is that of the model's own with ``.``: those on the Hub are downloaded."""
        if not self._local:
            self.folder = self._snapshot([*_ABOUT, *_weights(part, "safetensors")])
            if (self.folder / part).is_dir() and not self.has_safetensors(part):
                self.folder = self._snapshot([*_ABOUT, *_weights(part, "bin")])

    def json(self, path: str) -> dict[str, Any]:
        """Return the JSON object in a file of the repository."""
        file = self.folder / path
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise self.unusable(f"{path}: {error}") from error
        if not isinstance(content, dict):
            raise self.unusable(f"{path} is not a JSON object")
        return content

    def has_safetensors(self, part: str) -> bool:
        """Return whether a network's weights are safetensors; older repositories have weights-only ``.bin`` files instead."""
        return any((self.folder / part).glob("*.safetensors"))

    @property
    def card(self) -> tuple[dict[str, Any], str]:
        """The metadata and the text of the repository's card; both are empty without one, the metadata where they cannot be read."""
        from huggingface_hub import ModelCard

        file = self.folder / "README.md"
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        if not text.startswith("---"):
            return {}, text
        try:
            card = ModelCard(text, ignore_metadata_errors=True)
        except (yaml.YAMLError, ValueError):
            return {}, text
        return dict(vars(card.data)), card.text

    @property
    def licence(self) -> str | None:
        """The licence that the repository's card names, as an SPDX-like id; None where it is unknown."""
        named = self.card[0].get("license")
        return str(named) if named else _KNOWN_LICENCES.get(self.name)

    @property
    def pipeline(self) -> str:
        """The diffusers pipeline that the repository is, by its ``model_index.json``; of one with code of its own, the name in that."""
        named = self.json("model_index.json").get("_class_name")
        return str(named[-1] if isinstance(named, list) and named else named)

    def class_names(self, count: int) -> tuple[str, ...]:
        """Return the names of the ``count`` classes of a label table: those of ``id2label``, where it has them, or their numbers."""
        labels = self.json("model_index.json").get("id2label") or {str(number): str(number) for number in range(count)}
        return tuple(labels[key] for key in sorted(labels, key=int))

    @property
    def width(self) -> int | None:
        """Channels of a transformer with a label table, by its configuration; None for another network."""
        if not (self.folder / "transformer" / "config.json").is_file():
            return None
        config = self.json("transformer/config.json")
        heads, channels = config.get("num_attention_heads"), config.get("attention_head_dim")
        return heads * channels if isinstance(heads, int) and isinstance(channels, int) else None

    @property
    def reconstruction_psnr_db(self) -> float | None:
        """PSNR of the autoencoder on the training images, in dB, which ``d3hr fit`` measured; None for a prior of another origin."""
        if not (self.folder / "fit.json").is_file():
            return None
        measured = self.json("fit.json").get("reconstruction_psnr_db")
        return float(measured) if isinstance(measured, int | float) else None

    def unusable(self, found: str) -> PriorError:
        """Return the error for a repository that is not a prior; ``found`` says why not."""
        return PriorError(
            f"{self.name} cannot be loaded as a prior.",
            found=found,
            hint="give a folder written by 'd3hr fit', or by save_pretrained of a pipeline of diffusers that d3hr can use.",
        )

    def _snapshot(self, patterns: list[str]) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

        try:
            return Path(snapshot_download(self.name, allow_patterns=patterns, ignore_patterns=_OTHER_WEIGHTS))
        except Exception as error:  # the Hub client raises from many unrelated trees
            if isinstance(error, GatedRepoError):
                hint = "accept the model's terms on its page, then 'hf auth login'."
            elif isinstance(error, RepositoryNotFoundError):
                hint = "check the id, or fit a prior with 'd3hr fit DATA --out PRIOR'."
            elif isinstance(error, LocalEntryNotFoundError) and os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
                hint = "HF_HUB_OFFLINE is set and the Hub's cache does not hold it: unset it, or download it once where there is a network."
            else:
                hint = f"the Hub is out of reach: connect, or bring a copy ('hf download {self.name}' elsewhere) and give its folder."
            first = str(error).splitlines()[0] if str(error) else ""
            raise PriorError(
                f"There is no prior {self.name} here.", found=f"no such folder; from the Hub: {type(error).__name__}: {first}", hint=hint
            ) from error


def _weights(part: str, suffix: str) -> list[str]:
    """Return the patterns of the weight files of a part, which match nothing else."""
    return [f"{'' if part == '.' else part + '/'}{stem}*.{suffix}" for stem in ("diffusion_pytorch_model", "model", "pytorch_model")]


def weight_files(folder: Path) -> list[Path]:
    """Return the files that a network's weights are read from: safetensors where there are any, else ``.bin`` files."""
    files = [file for file in sorted(folder.iterdir()) if not any(file.match(pattern) for pattern in _OTHER_WEIGHTS)]
    return [file for file in files if file.suffix == ".safetensors"] or [file for file in files if file.suffix == ".bin"]


def autoencoder_config(repository: Repository) -> dict[str, Any]:
    """Return the configuration of the autoencoder of a pipeline (in ``vae``) or of a repository of its own."""
    return repository.json(f"{_autoencoder_part(repository)}/config.json")


def _autoencoder_part(repository: Repository) -> str:
    return "vae" if (repository.folder / "vae").is_dir() else "."


def load_autoencoder(repository: Repository, dtype: torch.dtype) -> Any:
    """Return the autoencoder of a pipeline (in ``vae``) or of a repository of its own."""
    import diffusers

    part = _autoencoder_part(repository)
    kind = autoencoder_config(repository).get("_class_name")
    if kind not in AUTOENCODERS:
        raise repository.unusable(f"its autoencoder is of class {kind}; d3hr can use {', '.join(AUTOENCODERS[:-1])} and {AUTOENCODERS[-1]}")
    return load_network(getattr(diffusers, kind), repository, part, dtype)


def load_network(kind: Any, repository: Repository, part: str, dtype: torch.dtype) -> Any:
    """Load one network of a diffusers class, on the CPU; refuse files that lack weights, which diffusers would draw at random."""
    repository.fetch(part)
    folder = repository.folder / part
    try:
        safe = repository.has_safetensors(part)
        network, info = kind.from_pretrained(folder, torch_dtype=dtype, use_safetensors=safe, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise repository.unusable(f"{part}: {error}") from error
    if info["missing_keys"]:
        raise repository.unusable(f"{part} lacks {len(info['missing_keys'])} weights, such as {sorted(info['missing_keys'])[0]}")
    return network


def write_pipeline(
    folder: Path,
    pipeline: str,
    networks: Mapping[str, Any],
    scheduler_config: Mapping[str, Any],
    about: Mapping[str, Any],
    licence: str | None,
) -> None:
    """Write a prior as a pipeline of diffusers into a folder.

    Args:
        networks: the pipeline's networks, by the names of their parts.
        about: what else ``model_index.json`` says.
    """
    import diffusers

    name = str(scheduler_config.get("_class_name"))
    kind = getattr(diffusers, name if name.endswith("Scheduler") else "DDIMScheduler", diffusers.DDIMScheduler)
    folder.mkdir(parents=True, exist_ok=True)
    with explained(folder):
        for part, network in networks.items():
            network.save_pretrained(folder / part, safe_serialization=True)
        kind.from_config(dict(scheduler_config)).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": pipeline,
        "_diffusers_version": diffusers.__version__,
        **about,
        "scheduler": ["diffusers", kind.__name__],
        **{part: ["diffusers", type(network).__name__] for part, network in networks.items()},
    }
    if licence:
        write_bytes(folder / "README.md", f"---\nlicense: {licence}\n---\n".encode())
    write_json(folder / "model_index.json", index, checksum=False)  # diffusers' own form
