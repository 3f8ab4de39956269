"""The family of pixel models (DDPM, arXiv 2006.11239): a U-Net that diffuses images themselves, as diffusers' ``DDPMPipeline`` stores it.

Legend: N images, C channels, h = w image side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from d3hr.errors import PriorError, SettingsError
from d3hr.prior.class_matching import Conditioning, match_classes
from d3hr.prior.conditions import Condition, Inputs, unguided
from d3hr.prior.families.denoiser import SCHEDULER_FILE, Denoiser, refuse_text
from d3hr.prior.pixels import Pixels
from d3hr.prior.repository import Repository, Variant, load_network, write_pipeline
from d3hr.prior.schedules.schedule import Schedule

_CLIPPING = ("clip_sample", "thresholding")


class PixelUNet(Denoiser):
    """A U-Net on pixels, with a label table or without.

    A table with one row more than there are names ends with a null class, from which guidance leads away; one with as many has none.

    Args:
        unet: diffusers ``UNet2DModel``.
        class_names: name of each row of the label table; none for a network without one, which draws every class alike.

    Raises:
        PriorError: the network takes no square RGB or grey images, or its labels or times in a form that d3hr does not know.
    """

    pipelines = ("DDPMPipeline",)

    def __init__(self, unet: Any, class_names: Sequence[str] = ()) -> None:
        config = unet.config
        sides = {config.sample_size} if isinstance(config.sample_size, int) else set(config.sample_size or ())
        rows = config.num_class_embeds or 0
        for right, found, hint in (
            (len(sides) == 1, f"sample_size {config.sample_size}", "use a model of square images, of a size that its config.json names."),
            (config.in_channels in (1, 3), f"{config.in_channels} input channels", "use a model of RGB images, or of grey ones."),
            (
                config.out_channels in (config.in_channels, 2 * config.in_channels),
                f"{config.in_channels} input channels, {config.out_channels} outputs",
                "use a model with as many outputs as inputs, or twice as many.",
            ),
            (config.time_embedding_type != "fourier", "time embedding 'fourier'", "use a model of DDPM, with training timesteps."),
            (config.class_embed_type is None, f"class embedding {config.class_embed_type!r}", "use a model with a table of labels."),
            (rows - len(class_names) in (0, 1 if class_names else 0), f"{rows} labels, {len(class_names)} names", "repair id2label."),
        ):
            if not right:
                raise PriorError("The prior's U-Net cannot be used.", found=found, hint=hint)
        self.network, self.class_names = unet, tuple(class_names)
        self._side = int(sides.pop())
        self._null = rows - 1 if rows > len(class_names) else None

    @classmethod
    def load(cls, repository: Repository, dtype: torch.dtype) -> Self:
        """Load the U-Net of a ``DDPMPipeline``."""
        from diffusers import UNet2DModel

        return cls(load_network(UNet2DModel, repository, _part(repository), dtype), cls.labels_in(repository))

    @classmethod
    def labels_in(cls, repository: Repository) -> tuple[str, ...]:
        """Return the names of ``id2label`` in ``model_index.json``, by default the numbers of the rows; none without a label table."""
        rows = repository.json(f"{_part(repository)}/config.json").get("num_class_embeds")
        return repository.class_names(int(rows)) if rows else ()

    @classmethod
    def match_in(
        cls, repository: Repository, variant: Variant, class_names: Sequence[str], *, of: str, class_map: Mapping[str, str] | None = None
    ) -> tuple[Conditioning, ...]:
        """Return the row of each class, or nothing."""
        if cls.labels_in(repository):
            return super().match_in(repository, variant, class_names, of=of, class_map=class_map)
        refuse_text(variant)
        return _nothing(class_names, class_map)

    @classmethod
    def load_autoencoder(cls, repository: Repository, dtype: torch.dtype) -> Any:
        """Return what takes the place of an autoencoder; a real one is refused."""
        if not (repository.folder / "model_index.json").is_file() or repository.pipeline not in cls.pipelines:
            raise PriorError(
                "A pixel model takes no autoencoder.", found=f"the autoencoder {repository.name}", hint="leave --autoencoder out."
            )
        return Pixels(int(repository.json(f"{_part(repository)}/config.json").get("in_channels", 3)))

    @classmethod
    def scheduler_config(cls, repository: Repository) -> dict[str, Any]:
        """Return the configuration of the scheduler, which older repositories have next to the model."""
        return repository.json(SCHEDULER_FILE if (repository.folder / SCHEDULER_FILE).is_file() else Path(SCHEDULER_FILE).name)

    def schedule(self, scheduler_config: Mapping[str, Any]) -> Schedule:
        """Return the noise schedule without the clipping that such pipelines add to sampling, which inversion could not undo."""
        clipping = [name for name in _CLIPPING if scheduler_config.get(name)]
        if clipping:
            self.notes = (f"{' and '.join(clipping)} of its sampler is left out, since no inversion undoes it",)
        return super().schedule({**scheduler_config, **dict.fromkeys(_CLIPPING, False)})

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one image."""
        return self.network.config.in_channels, self._side, self._side

    def match(
        self, class_names: Sequence[str], *, of: str, class_map: Mapping[str, str] | None = None, allow_missing: bool = False
    ) -> tuple[Conditioning, ...]:
        """Return the row of the label table of each class; nothing for each, where there is no table."""
        if self.class_names:
            return match_classes(class_names, self.class_names, of=of, class_map=class_map, allow_missing=allow_missing)
        return _nothing(class_names, class_map)

    def conditions(self, conditioning: Sequence[Conditioning]) -> dict[str, Condition]:
        """Return the rows as conditions, or conditions of nothing."""
        return {match.class_name: self._row(match.conditioning_id) for match in conditioning}

    @property
    def example(self) -> Condition:
        """The first class."""
        return self._row(0 if self.class_names else None)

    def _row(self, row: int | None) -> Condition:
        if row is None:
            return Condition(None)
        null = None if self._null is None else {"class_labels": torch.tensor(self._null)}
        return Condition(row, {"class_labels": torch.tensor(row)}, null)

    def of_labels(self, labels: Tensor, guided: bool) -> Inputs:
        """Return the rows themselves and, if ``guided``, as many of the null class."""
        if not self.class_names:
            return super().of_labels(labels, guided)
        if not guided:
            return {"class_labels": labels}
        if self._null is None:
            raise unguided("guidance for rows of a label table without a null class")
        return {"class_labels": torch.cat([labels, torch.full_like(labels, self._null)])}

    def __call__(self, z: Tensor, t: Tensor, inputs: Inputs) -> Tensor:
        """Return the prediction [N, C, h, w]; a U-Net with learned variance returns that after it."""
        output: Tensor = self.network(z, t, **inputs, return_dict=False)[0]
        return output[:, : z.shape[1]]

    def save(self, folder: Path, vae: Any, scheduler_config: Mapping[str, Any], licence: str | None) -> None:
        """Write a ``DDPMPipeline``, with the clipping that its own sampler has."""
        about = {"id2label": {str(label): name for label, name in enumerate(self.class_names)}} if self.class_names else {}
        write_pipeline(folder, "DDPMPipeline", {"unet": self.network}, scheduler_config, about, licence)


def _part(repository: Repository) -> str:
    """Return the folder of the U-Net; older repositories have it at the top."""
    return "unet" if (repository.folder / "unet").is_dir() else "."


def _nothing(class_names: Sequence[str], class_map: Mapping[str, str] | None) -> tuple[Conditioning, ...]:
    """Return what a prior that knows no classes is given for each."""
    if class_map:
        raise SettingsError(
            "A class map has no part in a prior that knows no classes.",
            found=f"a map of {len(class_map)} classes",
            hint="leave --class-map out.",
        )
    return tuple(Conditioning(name, None, "", "nothing") for name in class_names)
