"""What the families of text-to-image priors have in common: what they are given of a class is a prompt.

A prompt is encoded once, by the pipeline of diffusers itself, one at a time, so that its embedding does not depend on what else is encoded.
The encoders are loaded for that only: neither inversion nor other processes need them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from d3hr.prior.adapters import Adapter
from d3hr.prior.class_matching import Conditioning
from d3hr.prior.conditions import Condition, Inputs
from d3hr.prior.families.denoiser import Denoiser
from d3hr.prior.prompts import DEFAULT_PROMPT, match_prompts, prompts_of
from d3hr.prior.quiet import quiet
from d3hr.prior.repository import Repository, Variant, load_network, write_pipeline
from d3hr.prior.text_encoders import TextEncoders


class TextDenoiser(Denoiser):
    """The network of a text-to-image prior.

    Args:
        network: the diffusers model.
        repository: the pipeline that its text encoders are in.
    """

    given_text = True
    part: ClassVar[str]
    """The network's part of the pipeline."""
    embeddings: ClassVar[tuple[str, ...]]
    """The arguments of the network that the pipeline's ``encode_prompt`` returns for a prompt, in order."""
    further_prompts: ClassVar[tuple[str, ...]] = ()
    """Arguments of ``encode_prompt`` for other encoders' prompts, which it requires; None has it take the first one's."""
    optional_encoders: ClassVar[tuple[str, ...]] = ()
    """Text encoders that a copy of a pipeline may lack."""

    def __init__(self, network: Any, repository: Repository) -> None:
        self.network, self.repository = network, repository
        self.encoders = TextEncoders(repository, self.optional_encoders)
        self._template: str | None = None
        self._negative: str | None = None
        self._encoded: dict[str, Inputs] = {}
        self._null: Inputs = {}

    @staticmethod
    @abstractmethod
    def network_class() -> Any:
        """Return the diffusers class of the network."""

    @classmethod
    def load(cls, repository: Repository, dtype: torch.dtype) -> Self:
        """Load the network of a pipeline."""
        config = repository.json(f"{cls.part}/config.json")
        if not isinstance(config.get("sample_size"), int):
            raise repository.unusable(f"{cls.part}: its sample_size is {config.get('sample_size')}; d3hr needs one side, of square images")
        with quiet():
            network = load_network(cls.network_class(), repository, cls.part, dtype)
        return cls(network, repository)

    @classmethod
    def match_in(
        cls, repository: Repository, variant: Variant, class_names: Sequence[str], *, of: str, class_map: Mapping[str, str] | None = None
    ) -> tuple[Conditioning, ...]:
        """Return the prompt of each class, of which no weight is read."""
        return _matched(repository, variant.prompt, class_names, of, class_map)

    def adapted(self, variant: Variant) -> Self:
        """Take the prompts and the negative prompt of a variant, and fold its adapter into the weights."""
        self._template, self._negative = variant.prompt, variant.negative_prompt
        if variant.lora is not None:
            import diffusers

            with quiet():
                pipeline = getattr(diffusers, self.pipelines[0])
            self.encoders.adapter = Adapter(variant.lora, pipeline, self.network.config)
            self.encoders.adapter.fuse(self.network, self.part)
        return self

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent."""
        config = self.network.config
        return config.in_channels, config.sample_size, config.sample_size

    def prompts(self, class_names: Sequence[str], template: str) -> dict[str, str]:
        """Return class -> prompt, by :func:`~d3hr.prior.prompts.prompts_of`."""
        return prompts_of(class_names, template)

    def match(
        self, class_names: Sequence[str], *, of: str, class_map: Mapping[str, str] | None = None, allow_missing: bool = False
    ) -> tuple[Conditioning, ...]:
        """Return the prompt of each class, by :func:`~d3hr.prior.prompts.match_prompts`."""
        return _matched(self.repository, self._template, class_names, of, class_map)

    def conditions(self, conditioning: Sequence[Conditioning]) -> dict[str, Condition]:
        """Return the embeddings of prompts and negative prompt; text encoders are loaded only where one is new, and released again."""
        new = dict.fromkeys(match.prior_class for match in conditioning if match.prior_class not in self._encoded)
        if new:
            self._encode(list(new))
        encoded = self._encoded
        return {match.class_name: Condition(match.prior_class, encoded[match.prior_class], self._null) for match in conditioning}

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> None:
        with quiet():
            pipeline = self.text_pipeline(self.encoders.load(self.weight.dtype, self.weight.device))
        further = dict.fromkeys(self.further_prompts)
        for prompt in prompts:
            of_class_and_null = pipeline.encode_prompt(
                prompt=prompt,
                **further,
                device=self.weight.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=not self._null,
                negative_prompt=self._negative,
            )
            self._encoded[prompt] = self._inputs(of_class_and_null[0::2])
            self._null = self._null or self._inputs(of_class_and_null[1::2])

    @abstractmethod
    def text_pipeline(self, parts: Mapping[str, Any]) -> Any:
        """Return a pipeline of diffusers that encodes prompts with ``parts``, encoders and tokenizers by name, and has no network."""

    @property
    def constants(self) -> dict[str, Tensor]:
        """Arguments of the network that are the same for all prompts."""
        return {}

    def _inputs(self, embeddings: Sequence[Tensor]) -> Inputs:
        named = zip(self.embeddings, embeddings, strict=True)
        return {**{name: value[0].to("cpu", self.weight.dtype) for name, value in named}, **self.constants}

    def _example(self, **shapes: int | tuple[int, ...]) -> Condition:
        """Return a condition of zeros."""
        inputs = {name: torch.zeros(shape) for name, shape in shapes.items()} | self.constants
        return Condition("", inputs, inputs)

    @property
    def identity(self) -> tuple[Any, ...]:  # type: ignore[override]
        """Text encoders and negative prompt; the prompts are those of a set's classes."""
        return self.encoders.fingerprint, self._negative

    @property
    def record(self) -> dict[str, Any]:
        """Template of the prompts, negative prompt, adapter and text encoders, as far as they are given."""
        adapter = self.encoders.adapter.place if self.encoders.adapter else None
        values = {
            "prompt": self._template,
            "negative_prompt": self._negative,
            "lora": adapter,
            "text_encoders": self.encoders.fingerprint,
        }
        return {name: value for name, value in values.items() if value is not None}

    def save(self, folder: Path, vae: Any, scheduler_config: Mapping[str, Any], licence: str | None) -> None:
        """Write a pipeline of the family, with copies of text encoders and tokenizers, without a safety checker."""
        about = self.encoders.copy(folder)
        write_pipeline(folder, self.pipelines[0], {self.part: self.network, "vae": vae}, scheduler_config, about, licence)


def _matched(
    repository: Repository, template: str | None, class_names: Sequence[str], of: str, class_map: Mapping[str, str] | None
) -> tuple[Conditioning, ...]:
    """Return the prompt of each class; where none is asked for, that with which a fit has trained the prior, if it has."""
    if template is None and not class_map and (repository.folder / "fit.json").is_file():
        known = repository.json("fit.json").get("began_as") or {}
        fitted = {name: str(known[name]) for name in class_names if name in known}
        return tuple(replace(match, how="prompt") for match in match_prompts(class_names, of=of, template=DEFAULT_PROMPT, class_map=fitted))
    return match_prompts(class_names, of=of, template=template, class_map=class_map)
