"""Low-rank adapters (LoRA, arXiv 2106.09685): added to a network for training, read from files of others, and folded into its weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from d3hr.errors import PriorError, SettingsError
from d3hr.fileio.checksums import digest_of_tensors
from d3hr.prior.quiet import quiet

_RANKS = (".lora_A.", ".down.", "_lora.down.")
"""What the key of an adapter's first factor has in it, of which each adapted layer has one."""


def add_lora(network: Any, rank: int, targets: Sequence[str]) -> None:
    """Freeze a network and add low-rank adapters to the layers whose names end with one of ``targets``, in place."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise SettingsError("--adapt lora needs the package peft.", found=str(error), hint="pip install 'd3hr[lora]'.") from error
    network.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)), network)


def merge_lora(network: Any) -> int:
    """Fold the adapters of a network into its weights, in place, so that it has its former layout again; return how many there were."""
    from peft.tuners.lora import LoraLayer

    merged = 0
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoraLayer):
                layer.merge()
                setattr(parent, name, layer.get_base_layer())
                merged += 1
    return merged


class Adapter:
    """An adapter in the format of diffusers' ``save_lora_weights`` (or one that diffusers converts to it), as it was read.

    Args:
        place: folder or Hub id with one safetensors file.
        pipeline: class of the diffusers pipeline that it is for.
        config: configuration of that pipeline's network.

    Raises:
        PriorError: there is no such file, or it is no adapter.
        SettingsError: the package peft is missing.
    """

    def __init__(self, place: str, pipeline: Any, config: Any) -> None:
        try:
            import peft  # noqa: F401
        except ImportError as error:
            raise SettingsError("--lora needs the package peft.", found=str(error), hint="pip install 'd3hr[lora]'.") from error
        self.place, self._pipeline = place, pipeline
        try:
            with quiet():
                read = pipeline.lora_state_dict(place, use_safetensors=True, return_lora_metadata=True, unet_config=config)
        except Exception as error:  # of the file system, of the Hub, of safetensors, of conversions
            raise self._unfit(str(error)) from error
        self._weights, *alphas, self._metadata = read
        self._alphas = alphas[0] if alphas else None
        if not any("lora" in key for key in self._weights):
            raise self._unfit("no weights of LoRA in it")

    def fuse(self, network: Any, part: str) -> None:
        """Fold what the adapter has for a pipeline's network, called ``part`` there, into its weights, in place."""
        self._fuse(network, part, lambda: network.load_lora_adapter(self._weights, part, **self._options))

    def adapts(self, encoder: str) -> bool:
        """Return whether the adapter has anything for a text encoder."""
        return bool(self._of(encoder))

    def fuse_encoder(self, network: Any, encoder: str) -> None:
        """Fold what the adapter has for a text encoder into its weights, in place."""
        options = {**self._options, "network_alphas": self._alphas}
        self._fuse(
            network,
            encoder,
            lambda: self._pipeline.load_lora_into_text_encoder(self._weights, text_encoder=network, prefix=encoder, **options),
        )

    @cached_property
    def encoders_fingerprint(self) -> str | None:
        """SHA-256 over what it has for text encoders; None where that is nothing."""
        weights = {key: value for key, value in self._weights.items() if key.startswith("text_encoder")}
        return digest_of_tensors(weights, {}) if weights else None

    @property
    def _options(self) -> dict[str, Any]:
        return {"network_alphas": self._alphas, "metadata": self._metadata}

    def _of(self, part: str) -> list[str]:
        return [key for key in self._weights if key.startswith(f"{part}.")]

    def _fuse(self, network: Any, part: str, load: Any) -> None:
        wanted = sum(any(rank in key for rank in _RANKS) for key in self._of(part))
        if not wanted:
            raise self._unfit(f"nothing for the {part}; it has {', '.join(sorted({key.split('.')[0] for key in self._weights}))}")
        try:
            with quiet():
                load()
        except Exception as error:  # of peft, of diffusers, of torch where shapes differ
            raise self._unfit(str(error)) from error
        found = merge_lora(network)
        network._hf_peft_config_loaded = False
        if found != wanted:
            raise self._unfit(f"{wanted} layers of a {part} in it, of which this one has {found}")

    def _unfit(self, found: str) -> PriorError:
        first = found.strip().split("\n", 1)[0]
        return PriorError(
            f"The adapter {self.place} does not fit the prior.",
            found=first[:400],
            hint="give a folder with an adapter in diffusers' format (pytorch_lora_weights.safetensors) that was trained on this model.",
        )
