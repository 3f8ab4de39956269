"""A diffusion prior of any family: an autoencoder, a denoising network and a noise schedule.

Legend: N images, H = W image side, C h w latent axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from d3hr.errors import PriorError, SettingsError
from d3hr.execution.worker import device_here, name_elsewhere
from d3hr.fileio.checksums import fingerprint, verify
from d3hr.prior.autoencoder import downsampling, to_images, to_latents
from d3hr.prior.compilation import compile_network, of_any_size
from d3hr.prior.conditions import Condition, Inputs
from d3hr.prior.families.denoiser import Denoiser
from d3hr.prior.families.registry import family_of
from d3hr.prior.networks import default_device
from d3hr.prior.precision import dtype_held
from d3hr.prior.repository import PriorRecord, Repository, Variant
from d3hr.prior.schedules.schedule import Point, Prediction
from d3hr.prior.schedules.variance_preserving import VariancePreserving

OPEN_PRIOR = "open it with d3hr.Prior.from_pretrained(FOLDER), or make one with d3hr.fit_prior."
"""What to do where a prior is needed and something else is given."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Prior:
    """A diffusion model that generates the classes of a data set.

    Args:
        denoiser: the network, of one of the families in :mod:`d3hr.prior.families`.
        vae: diffusers ``AutoencoderKL``, ``AutoencoderTiny`` or ``AutoencoderDC``; its ``scaling_factor`` brings latents to unit scale.
        scheduler_config: the diffusers scheduler's configuration.
        source: where the prior was loaded from.
        variant: in what it differs from what is there.
        licence: SPDX-like id of the licence of the weights, as far as it is known.

    Raises:
        PriorError: the parts do not fit each other.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        vae: Any,
        scheduler_config: Mapping[str, Any],
        *,
        source: str | None = None,
        variant: Variant | None = None,
        licence: str | None = None,
    ) -> None:
        denoiser.require_autoencoder(vae)
        denoiser.network.eval().requires_grad_(False)
        self.denoiser, self.vae = denoiser, vae.eval().requires_grad_(False)
        self.scheduler_config = dict(scheduler_config)
        self.source, self.variant, self.licence = source, variant or Variant(), licence
        self.schedule = denoiser.schedule(scheduler_config)
        self._compiler: str | None = None

    def __repr__(self) -> str:
        about = f"{len(self.class_names)} classes, " if self.class_names else ""
        return f"Prior({self.source!r}, {about}{self.image_size} px, {self.precision})"

    @property
    def network(self) -> Any:
        """The diffusers model that predicts what is noise."""
        return self.denoiser.network

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each row of the network's label table; empty where it has none."""
        return self.denoiser.class_names

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent."""
        return self.denoiser.latent_shape

    def conditions(
        self, class_names: Sequence[str], *, prompt: str | None = None, class_map: Mapping[str, str] | None = None
    ) -> dict[str, Condition]:
        """Return the condition of each class, by name: what :func:`~d3hr.invert` and :func:`~d3hr.denoise` take as ``labels``.

        Args:
            class_names: the classes to generate.
            prompt: of a text-to-image prior, the template of the prompts instead of that of :meth:`from_pretrained`.
            class_map: class -> what the prior knows it as, for classes whose names do not match; or the prompt.
        """
        if prompt is not None:
            class_map = {**self.denoiser.prompts(class_names, prompt), **(class_map or {})}
        return self.denoiser.conditions(self.denoiser.match(class_names, of="the data", class_map=class_map))

    @property
    def image_size(self) -> int:
        """Side H = W of the images, in pixels."""
        return self.latent_shape[1] * downsampling(self.vae)

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.denoiser.weight.device

    @property
    def rounding(self) -> float:
        """Relative rounding error of the network's arithmetic: 1.2e-7 in fp32, 7.8e-3 in bf16, 9.8e-4 in fp16."""
        return torch.finfo(self.denoiser.weight.dtype).eps

    @property
    def precision(self) -> str:
        """Arithmetic of the network: ``fp32``, ``bf16``, ``fp16``."""
        return next((name for name, dtype in PRECISIONS.items() if dtype == self.network.dtype), str(self.network.dtype))

    @property
    def num_bytes(self) -> int:
        """Bytes of all weights, in the precision they are held in."""
        return sum(value.nbytes for network in (self.network, self.vae) for value in network.state_dict().values())

    @property
    def record(self) -> PriorRecord:
        """What the manifest of a set that is made with this prior says of it."""
        about: dict[str, Any] = {"autoencoder": self.variant.autoencoder, "licence": self.licence, "bytes": self.num_bytes}
        return PriorRecord(source=self.source, fingerprint=self.fingerprint, precision=self.precision, **about, **self.denoiser.record)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over class names, schedule, scaling factor and every weight."""
        settings, table = self.schedule.identity
        factors = (self.vae.config.scaling_factor, self.vae.config.get("shift_factor"))
        return fingerprint((self.network, self.vae), (self.class_names, *settings, factors, table, *self.denoiser.identity))

    def __reduce__(self) -> tuple[Any, ...]:
        # Other processes load the prior from where it came from: weights do not travel with every piece of work.
        if self.source is None:
            raise PriorError(
                "A prior in memory cannot be used by other processes.",
                found="a prior that was not loaded from anywhere",
                hint="save it (save_pretrained), and load it (Prior.from_pretrained).",
            )
        return _reopened, (self.source, name_elsewhere(self.device), self.precision, self.variant, self._compiler, self.fingerprint)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | Literal["auto"] | None = None,
        autoencoder: str | Path | None = None,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        lora: str | Path | None = None,
        compile: bool = False,
    ) -> Prior:
        """Load a folder or Hub repository in the layout of a diffusers pipeline, of any family that d3hr knows.

        Weights are safetensors; where an older repository has none, such as ``facebook/DiT-XL-2-256``, PyTorch's weights-only reader
        takes its ``.bin`` files. Classes of a label table have the names of ``id2label`` in ``model_index.json``, or else their numbers.

        Args:
            path_or_hub_id: a folder that :meth:`save_pretrained` or diffusers wrote, a Hub id, or a checkpoint of SiT, which is a file.
            device: where the networks run; by default CUDA or MPS where there is one, else the CPU.
            dtype: precision of the networks: float32 (the default), bfloat16, float16, or "auto" (see :func:`dtype_held`).
            autoencoder: folder or Hub id of an autoencoder to use instead of the pipeline's own.
            prompt: of a text-to-image prior, the template of the classes' prompts; by default "a photo of a {name}".
            negative_prompt: of a text-to-image prior, what guidance leads away from; by default nothing in particular.
            lora: of a text-to-image prior, folder or Hub id of an adapter (:class:`~d3hr.prior.adapters.Adapter`) for its weights.
            compile: whether to :meth:`compile` it.

        Raises:
            PriorError: there is no such folder, the Hub is out of reach, d3hr does not know its family, or its parts do not fit.
            DamagedFile: a folder that d3hr finished is not what was written.
            SettingsError: an unknown precision, or no compiler that works.
        """
        verify(path_or_hub_id)
        variant = Variant(str(autoencoder) if autoencoder else None, prompt, negative_prompt, str(lora) if lora else None)
        repository = Repository(str(path_or_hub_id))
        family = family_of(repository)  # refuses other pipelines before their weights are read
        where = torch.device(device or default_device())
        precision = dtype_held(dtype, where, repository.width)
        prior = cls(
            vae=family.load_autoencoder(Repository(str(autoencoder)) if autoencoder else repository, precision).to(where),
            denoiser=family.load(repository, precision).adapted(variant).to(where),
            scheduler_config=family.scheduler_config(repository),
            source=str(path_or_hub_id),
            variant=variant,
            licence=repository.licence,
        )
        if compile:
            prior.compile()
        return prior

    def compile(self, backend: str = "inductor") -> None:
        """Let ``torch.compile`` translate the network, for any size of batch, and run it once; its results stay the same but for rounding.

        ``backend`` "inductor" needs a C++ compiler on the CPU, and Triton on CUDA; where it fails, the error is a ``SettingsError``.
        """
        self._compiler = backend
        try:
            point = self.schedule.points(2)[0]
            compile_network(self.network, backend, lambda: self.slope(torch.zeros(2, *self.latent_shape), point, self.denoiser.example))
        except SettingsError:
            self._compiler = None
            raise

    def save_pretrained(self, path: str | Path) -> None:
        """Write a folder that :meth:`from_pretrained` and the family's pipeline of diffusers open."""
        self.denoiser.save(Path(path), self.vae, self.scheduler_config, self.licence)

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
    def slope(self, latents: Tensor, point: Point, condition: Condition | Tensor, guidance_scale: float = 1.0) -> Tensor:
        """Return the slope of the schedule [N, C, h, w] in ``latents`` [N, C, h, w], in their dtype and on their device.

        It is the noise, or, of a flow, the velocity (see :class:`~d3hr.prior.schedules.schedule.Schedule`). Classifier-free guidance
        (arXiv 2207.12598): q_null + g (q_class - q_null). At g = 1 the network runs once per image, else twice; a prior that is given
        nothing of a class is not guided.

        Args:
            latents: noisy latents.
            point: the time that the network is given, and what output and slope are taken to belong to.
            condition: that of a class, or rows [N] of the label table, of which the row after the last class is the null class.
            guidance_scale: g.
        """
        z = self.schedule.network_input(latents, point).to(self.device, self.denoiser.weight.dtype)
        if isinstance(condition, Tensor):
            guided = guidance_scale != 1
            inputs = self.denoiser.of_labels(condition, guided)
        else:
            guided = guidance_scale != 1 and condition.key is not None
            inputs = condition.batch(len(z), guided=guided)
        output = self._called(torch.cat([z, z]) if guided else z, point, inputs).to(latents)
        if guided:
            of_class, of_null = output.chunk(2)
            output = of_null + guidance_scale * (of_class - of_null)
        # A slope is an affine function of any output, so guiding the output guides the slope.
        return self.schedule.slope(output, latents, point)

    def predict(self, latents: Tensor, point: Point, condition: Condition | Tensor, guidance_scale: float = 1.0) -> Prediction:
        """Return the clean latents and the noise that ``latents`` at a point are made of, by the arguments of :meth:`slope`."""
        return self.schedule.split(latents, self.slope(latents, point, condition, guidance_scale), point)

    def predict_noise(self, latents: Tensor, timestep: int, labels: Condition | Tensor, guidance_scale: float = 1.0) -> Tensor:
        """Return the noise [N, C, h, w] in ``latents`` at a training timestep 0 to T - 1, by the other arguments of :meth:`slope`.

        A schedule without training timesteps is a ``SettingsError``: ask :meth:`predict`.
        """
        if not isinstance(self.schedule, VariancePreserving):
            found = type(self.schedule).__name__
            raise SettingsError("This prior has no training timesteps.", found=found, hint="ask prior.predict for a point.")
        return self.slope(latents, self.schedule.at(int(timestep)), labels, guidance_scale)

    def _called(self, z: Tensor, point: Point, inputs: Inputs) -> Tensor:
        t = torch.full((len(z),), point.t, device=self.device)
        inputs = {name: value.to(self.device, z.dtype if value.is_floating_point() else None) for name, value in inputs.items()}
        if self._compiler:
            of_any_size(z, t, *inputs.values())
        return self.denoiser(z, t, inputs)


def _reopened(source: str, device: str, precision: str, variant: Variant, compiler: str | None, fingerprint: str) -> Prior:
    """Return the prior that another process uses, on the device that this process has now."""
    return _loaded(source, str(device_here(device)), precision, variant, compiler, fingerprint)


@lru_cache(maxsize=1)
def _loaded(source: str, device: str, precision: str, variant: Variant, compiler: str | None, fingerprint: str) -> Prior:
    """Load a prior, and see that it is the same as elsewhere; kept for the next piece of work that asks for it on the same device."""
    prior = Prior.from_pretrained(source, device=device, dtype=PRECISIONS[precision], **vars(variant))
    if prior.fingerprint != fingerprint:
        raise PriorError(
            f"{source} is not the same prior for every process.",
            found=f"fingerprint {prior.fingerprint[:12]} here, {fingerprint[:12]} where the work began",
            hint="leave its folder as it is while it is used, and let every machine see the same one.",
        )
    if compiler:
        prior.compile(compiler)
    return prior
