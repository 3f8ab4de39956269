"""The diffusion prior: an autoencoder and a class-conditional diffusion transformer, on disk as a diffusers ``DiTPipeline`` folder.

Legend: N images, H = W image side, C h w latent axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3hr.errors import PriorError, SettingsError
from d3hr.execution.worker import device_here, name_elsewhere
from d3hr.fileio.checksums import fingerprint, verify
from d3hr.prior.autoencoder import downsampling, to_images, to_latents
from d3hr.prior.networks import default_device
from d3hr.prior.repository import PriorRecord, Repository, load_autoencoder, load_transformer, write_pipeline
from d3hr.prior.schedule import Schedule

OPEN_PRIOR = "open it with d3hr.Prior.from_pretrained(FOLDER), or make one with d3hr.fit_prior."
"""What to do where a prior is needed and something else is given."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Prior:
    """A latent diffusion model with named classes.

    Args:
        transformer: diffusers ``DiTTransformer2DModel``; its label table ends with the null class.
        vae: diffusers ``AutoencoderKL``, ``AutoencoderTiny`` or ``AutoencoderDC``; its ``scaling_factor`` brings latents to unit scale.
        scheduler_config: the diffusers scheduler's configuration.
        class_names: name of each conditioning id.
        source: where the prior was loaded from.
        autoencoder: where the autoencoder was loaded from, if it is not the pipeline's own.
        licence: SPDX-like id of the licence of the weights, as far as it is known.

    Raises:
        PriorError: the parts do not fit each other.
    """

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        scheduler_config: Mapping[str, Any],
        class_names: Sequence[str],
        *,
        source: str | None = None,
        autoencoder: str | None = None,
        licence: str | None = None,
    ) -> None:
        classes, channels = transformer.config.num_embeds_ada_norm, transformer.config.in_channels
        if classes != len(class_names):
            raise PriorError(
                "The prior's transformer and its class names disagree.",
                found=f"{classes} classes in the transformer, {len(class_names)} names",
                hint="repair id2label in model_index.json.",
            )
        if channels != vae.config.latent_channels or transformer.out_channels not in (channels, 2 * channels):
            raise PriorError(
                "The prior's transformer does not fit its autoencoder.",
                found=f"{channels} input channels, {vae.config.latent_channels} latent channels, {transformer.out_channels} outputs",
                hint="combine a transformer with the autoencoder it was trained on.",
            )
        self.transformer = transformer.eval().requires_grad_(False)
        self.vae = vae.eval().requires_grad_(False)
        self.scheduler_config = dict(scheduler_config)
        self.class_names = tuple(class_names)
        self.source, self.autoencoder, self.licence = source, autoencoder, licence
        self.schedule = Schedule.from_config(scheduler_config)
        self._compiler: str | None = None

    def __repr__(self) -> str:
        return f"Prior({self.source!r}, {len(self.class_names)} classes, {self.image_size} px, {self.precision})"

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent."""
        config = self.transformer.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def image_size(self) -> int:
        """Side H = W of the images, in pixels."""
        return int(self.transformer.config.sample_size) * downsampling(self.vae)

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self._weight.device

    @property
    def _weight(self) -> Tensor:
        """A weight of the transformer; diffusers' own ``device`` and ``dtype`` walk through all its modules at every call."""
        weight: Tensor = next(self.transformer.parameters())
        return weight

    @property
    def rounding(self) -> float:
        """Relative rounding error of the transformer's arithmetic: 1.2e-7 in fp32, 7.8e-3 in bf16, 9.8e-4 in fp16."""
        return torch.finfo(self._weight.dtype).eps

    @property
    def precision(self) -> str:
        """Arithmetic of the transformer: ``fp32``, ``bf16``, ``fp16``."""
        return next((name for name, dtype in PRECISIONS.items() if dtype == self.transformer.dtype), str(self.transformer.dtype))

    @property
    def num_bytes(self) -> int:
        """Bytes of all weights, in the precision they are held in."""
        return sum(value.nbytes for network in (self.transformer, self.vae) for value in network.state_dict().values())

    @property
    def record(self) -> PriorRecord:
        """What the manifest of a set that is made with this prior says of it."""
        return PriorRecord(
            source=self.source,
            fingerprint=self.fingerprint,
            precision=self.precision,
            autoencoder=self.autoencoder,
            licence=self.licence,
            bytes=self.num_bytes,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over class names, schedule, scaling factor and every weight."""
        schedule, factors = self.schedule, (self.vae.config.scaling_factor, self.vae.config.get("shift_factor"))
        about = (self.class_names, schedule.steps_offset, schedule.spacing, schedule.prediction, factors, schedule.alphas_cumprod.tolist())
        return fingerprint((self.transformer, self.vae), about)

    def __reduce__(self) -> tuple[Any, ...]:
        # Other processes load the prior from where it came from: weights do not travel with every piece of work.
        if self.source is None:
            raise PriorError(
                "A prior in memory cannot be used by other processes.",
                found="a prior that was not loaded from anywhere",
                hint="save it (save_pretrained), and load it (Prior.from_pretrained).",
            )
        return _reopened, (self.source, name_elsewhere(self.device), self.precision, self.autoencoder, self._compiler, self.fingerprint)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        autoencoder: str | Path | None = None,
        compile: bool = False,
    ) -> Prior:
        """Load a diffusers ``DiTPipeline`` folder or Hub repository.

        Weights are safetensors; where an older repository has none, such as ``facebook/DiT-XL-2-256``, PyTorch's weights-only reader
        takes its ``.bin`` files, which can hold nothing but tensors. Classes have the names of ``id2label`` in ``model_index.json``;
        where that is missing, as in whatever diffusers itself saves, they are called by their numbers.

        Args:
            path_or_hub_id: a folder that :meth:`save_pretrained` or diffusers wrote, or a Hub id such as ``facebook/DiT-XL-2-256``.
            device: where the networks run; by default CUDA or MPS where there is one, else the CPU.
            dtype: precision of the networks: float32 (the default), bfloat16 or float16.
            autoencoder: folder or Hub id of such an autoencoder to use instead of the pipeline's own.
            compile: whether to :meth:`compile` it.

        Raises:
            PriorError: there is no such folder, the Hub is out of reach, it is not a DiTPipeline, or its parts do not fit.
            DamagedFile: a folder that d3hr finished is not what was written.
            SettingsError: an unknown precision, or no compiler that works.
        """
        if dtype is not None and dtype not in PRECISIONS.values():
            raise SettingsError("Unknown precision.", found=f"{dtype}", hint="use float32, bfloat16 or float16.")
        verify(path_or_hub_id)
        repository = Repository(str(path_or_hub_id), ("transformer",) if autoencoder else ("transformer", "vae"))
        names = repository.class_names  # refuses other pipelines before their weights are read
        where = device or default_device()
        transformer = load_transformer(repository, dtype or torch.float32)
        prior = cls(
            transformer.to(where),
            load_autoencoder(Repository(str(autoencoder), (".", "vae")) if autoencoder else repository, dtype or torch.float32).to(where),
            repository.json("scheduler/scheduler_config.json"),
            names,
            source=str(path_or_hub_id),
            autoencoder=str(autoencoder) if autoencoder else None,
            licence=repository.licence,
        )
        if compile:
            prior.compile()
        return prior

    def compile(self, backend: str = "inductor") -> None:
        """Let ``torch.compile`` translate the transformer, for any size of batch, and run it once.

        Weights and fingerprint stay. Noise agrees with that of the plain network to rounding, not to the last bit.

        Args:
            backend: of ``torch.compile``; "inductor" needs a C++ compiler on the CPU, and Triton on CUDA.

        Raises:
            SettingsError: the compiler is missing or fails.
        """
        self.transformer.compile(backend=backend)
        self._compiler = backend
        try:
            self.predict_noise(torch.zeros(2, *self.latent_shape), 0, torch.zeros(2, dtype=torch.int64))
        except RuntimeError as error:  # torch._dynamo's and the backends' errors are such
            self.transformer._compiled_call_impl, self._compiler = None, None
            raise SettingsError(
                "The prior could not be compiled.",
                found=str(getattr(error, "inner_exception", error)).strip().split("\n", 1)[0],
                hint="install a C++ compiler (for the CPU) or Triton (for CUDA), or leave --compile out.",
            ) from error

    def save_pretrained(self, path: str | Path) -> None:
        """Write a folder that :meth:`from_pretrained` and ``diffusers.DiTPipeline.from_pretrained`` open."""
        write_pipeline(Path(path), self.transformer, self.vae, self.scheduler_config, self.class_names, self.licence)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the latents [N, C, h, w] (float32, posterior mean, unit scale) of images [N, 3, H, W] in [-1, 1]."""
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, self.image_size, self.image_size):
            raise SettingsError(
                "The images do not fit the prior.",
                found=f"shape {tuple(images.shape)}",
                hint=f"give images of shape [N, 3, {self.image_size}, {self.image_size}].",
            )
        return to_latents(self.vae, images)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return the images [N, 3, H, W] (float32, clamped to [-1, 1]) of latents [N, C, h, w]."""
        return to_images(self.vae, latents)

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
        z = latents.to(self.device, self._weight.dtype)
        y = labels.to(self.device)
        if guidance_scale == 1:
            output = self._run(z, timestep, y).to(latents)
        else:
            null = torch.full_like(y, len(self.class_names))
            of_class, of_null = self._run(torch.cat([z, z]), timestep, torch.cat([y, null])).to(latents).chunk(2)
            output = of_null + guidance_scale * (of_class - of_null)
        # Noise is an affine function of any prediction, so guiding the prediction guides the noise.
        return self.schedule.noise(output, latents, timestep)

    def _run(self, z: Tensor, timestep: int, y: Tensor) -> Tensor:
        t = torch.full((len(z),), int(timestep), device=self.device)
        if self._compiler:
            for of_images in (z, t, y):
                # The last batch of a class is smaller: without this every size would be compiled once more.
                torch._dynamo.maybe_mark_dynamic(of_images, 0)
        output: Tensor = self.transformer(z, timestep=t, class_labels=y, return_dict=False)[0]
        # A transformer with learned variance returns it after the noise.
        return output[:, : z.shape[1]]


def _reopened(source: str, device: str, precision: str, autoencoder: str | None, compiler: str | None, fingerprint: str) -> Prior:
    """Return the prior that another process uses, on the device that this process has now."""
    return _loaded(source, str(device_here(device)), precision, autoencoder, compiler, fingerprint)


@lru_cache(maxsize=1)
def _loaded(source: str, device: str, precision: str, autoencoder: str | None, compiler: str | None, fingerprint: str) -> Prior:
    """Load a prior, and see that it is the same as elsewhere; kept for the next piece of work that asks for it on the same device."""
    prior = Prior.from_pretrained(source, device=device, dtype=PRECISIONS[precision], autoencoder=autoencoder)
    if prior.fingerprint != fingerprint:
        raise PriorError(
            f"{source} is not the same prior for every process.",
            found=f"fingerprint {prior.fingerprint[:12]} here, {fingerprint[:12]} where the work began",
            hint="leave its folder as it is while it is used, and let every machine see the same one.",
        )
    if compiler:
        prior.compile(compiler)
    return prior
