"""The diffusion prior: an autoencoder and a class-conditional diffusion transformer, on disk as a diffusers ``DiTPipeline`` folder.

Legend: N images, H = W image side, C h w latent axes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3hr.errors import ClassMismatch, PriorError, SettingsError
from d3hr.prior.schedule import Schedule
from d3hr.staging import write_json

_PARTS = ("transformer", "vae", "scheduler")


class Prior:
    """A latent diffusion model with named classes.

    Args:
        transformer: diffusers ``DiTTransformer2DModel``; its label table ends with the null class.
        vae: diffusers ``AutoencoderKL``; its ``scaling_factor`` brings latents to unit scale.
        scheduler_config: the diffusers scheduler's configuration.
        class_names: name of each conditioning id.
        source: where the prior was loaded from.

    Raises:
        PriorError: the parts do not fit each other.
    """

    def __init__(
        self, transformer: Any, vae: Any, scheduler_config: dict[str, Any], class_names: Sequence[str], *, source: str | None = None
    ) -> None:
        known = transformer.config.num_embeds_ada_norm
        if known != len(class_names):
            raise PriorError(
                "The prior's transformer and its class names disagree.",
                found=f"{known} classes in the transformer, {len(class_names)} names",
                do="repair id2label in model_index.json.",
            )
        if transformer.config.in_channels != vae.config.latent_channels:
            raise PriorError(
                "The prior's transformer does not fit its autoencoder.",
                found=f"{transformer.config.in_channels} input channels, {vae.config.latent_channels} latent channels",
                do="combine a transformer with the autoencoder it was trained on.",
            )
        self.transformer = transformer.eval().requires_grad_(False)
        self.vae = vae.eval().requires_grad_(False)
        self.scheduler_config = dict(scheduler_config)
        self.class_names = tuple(class_names)
        self.source = source
        self.schedule = Schedule.from_config(scheduler_config)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent."""
        config = self.transformer.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def image_size(self) -> int:
        """Side H = W of the images, in pixels."""
        return int(self.transformer.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return torch.device(self.transformer.device)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over class names, schedule, scaling factor and every weight."""
        about = [self.class_names, self.schedule.steps_offset, self.vae.config.scaling_factor]
        digest = hashlib.sha256(json.dumps(about).encode())
        digest.update(self.schedule.alphas_cumprod.numpy().tobytes())
        for network in (self.transformer, self.vae):
            for name, value in sorted(network.state_dict().items()):
                digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
                digest.update(value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @classmethod
    def from_pretrained(
        cls, path_or_hub_id: str | Path, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Prior:
        """Load a diffusers ``DiTPipeline`` folder or Hub repository (safetensors only).

        Args:
            path_or_hub_id: a folder that :meth:`save_pretrained` or diffusers wrote, or a Hub id such as ``facebook/DiT-XL-2-256``.
            device: where the networks run; by default CUDA or MPS where there is one, else the CPU.
            dtype: precision of the networks; by default that of the files.

        Raises:
            PriorError: there is no such folder, or it is not a DiTPipeline with class names.
        """
        from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

        folder = _local_folder(str(path_or_hub_id))
        try:
            index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
            if index.get("_class_name") != "DiTPipeline":
                raise ValueError(f"its pipeline class is {index.get('_class_name')}, not DiTPipeline")
            if not index.get("id2label"):
                raise ValueError("model_index.json has no id2label, so its classes have no names")
            names = [index["id2label"][key] for key in sorted(index["id2label"], key=int)]
            scheduler_config = DDIMScheduler.load_config(folder / "scheduler")
            transformer = DiTTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=dtype, use_safetensors=True)
            vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            raise PriorError(
                f"{path_or_hub_id} cannot be loaded as a prior.",
                found=str(error),
                do="give a folder written by 'd3hr fit' or by diffusers' DiTPipeline.save_pretrained.",
            ) from error
        target = device or default_device()
        return cls(transformer.to(target), vae.to(target), dict(scheduler_config), names, source=str(path_or_hub_id))

    def save_pretrained(self, path: str | Path) -> None:
        """Write a folder that :meth:`from_pretrained` and ``diffusers.DiTPipeline.from_pretrained`` open."""
        from diffusers import DDIMScheduler, __version__

        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        self.transformer.save_pretrained(folder / "transformer", safe_serialization=True)
        self.vae.save_pretrained(folder / "vae", safe_serialization=True)
        DDIMScheduler.from_config(self.scheduler_config).save_pretrained(folder / "scheduler")
        index = {
            "_class_name": "DiTPipeline",
            "_diffusers_version": __version__,
            "id2label": {str(label): name for label, name in enumerate(self.class_names)},
            "scheduler": ["diffusers", "DDIMScheduler"],
            "transformer": ["diffusers", "DiTTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        write_json(folder / "model_index.json", index)

    def conditioning_ids(self, class_names: Sequence[str], of: str) -> list[int]:
        """Return the conditioning id of each class, by exact name.

        Args:
            class_names: the classes wanted.
            of: whose classes they are, for the message.

        Raises:
            ClassMismatch: the prior does not know all of them.
        """
        if not set(class_names) <= set(self.class_names):
            raise ClassMismatch(of, class_names, "the prior", self.class_names)
        return [self.class_names.index(name) for name in class_names]

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the latents [N, C, h, w] (float32, posterior mean, unit scale) of images [N, 3, H, W] in [-1, 1]."""
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, self.image_size, self.image_size):
            raise SettingsError(
                "The images do not fit the prior.",
                found=f"shape {tuple(images.shape)}",
                do=f"give images of shape [N, 3, {self.image_size}, {self.image_size}].",
            )
        posterior = self.vae.encode(images.to(self.device, self.vae.dtype)).latent_dist
        return torch.as_tensor(posterior.mode().float() * self.vae.config.scaling_factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the images [N, 3, H, W] (float32, clamped to [-1, 1]) of latents [N, C, h, w]."""
        scaled = latents.to(self.device, self.vae.dtype) / self.vae.config.scaling_factor
        return torch.as_tensor(self.vae.decode(scaled).sample.float().clamp(-1, 1))

    @torch.no_grad()
    def predict_noise(self, latents: Tensor, timestep: int, labels: Tensor, guidance_scale: float = 1.0) -> Tensor:
        """Return the noise [N, C, h, w] in ``latents`` [N, C, h, w] at a training timestep, in the dtype and on the device of ``latents``.

        Classifier-free guidance (arXiv 2207.12598): eps_null + g (eps_class - eps_null), where the null class is the last row of
        the label table. At g = 1 the network runs once an image, else twice.

        Args:
            latents: noisy latents.
            timestep: training timestep, 0 to T - 1.
            labels: conditioning ids [N], 0 to ``len(class_names)`` (the null class).
            guidance_scale: g.
        """
        z = latents.to(self.device, self.transformer.dtype)
        y = labels.to(self.device)
        if guidance_scale == 1:
            return self._run(z, timestep, y).to(latents)
        null = torch.full_like(y, len(self.class_names))
        eps_class, eps_null = self._run(torch.cat([z, z]), timestep, torch.cat([y, null])).to(latents).chunk(2)
        return eps_null + guidance_scale * (eps_class - eps_null)

    def _run(self, z: Tensor, timestep: int, y: Tensor) -> Tensor:
        t = torch.full((len(z),), int(timestep), device=self.device)
        output: Tensor = self.transformer(z, timestep=t, class_labels=y, return_dict=False)[0]
        # A transformer with learned variance returns it after the noise.
        return output[:, : z.shape[1]]


def default_device() -> torch.device:
    """Return CUDA or MPS where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _local_folder(name: str) -> Path:
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise PriorError(
            f"There is no prior at {name}.", found="no such folder", do="fit one with 'd3hr fit DATA --out PRIOR', or name a Hub id."
        )
    from huggingface_hub import snapshot_download

    patterns = ["model_index.json", *(f"{part}/*.{suffix}" for part in _PARTS for suffix in ("json", "safetensors"))]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the Hub client raises from many unrelated trees
        raise PriorError(
            f"There is no prior {name}.",
            found=f"no such folder; from the Hub: {type(error).__name__}: {error}",
            do="fit one with 'd3hr fit DATA --out PRIOR', or check the id and the network.",
        ) from error
