"""Fits a prior from scratch: the autoencoder on the images, then the class-conditional transformer on their latents.

Legend: N images, H = W image side, C h w latent axes.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from d3hr.data import ImageData
from d3hr.errors import SettingsError
from d3hr.prior.latents import Latents
from d3hr.prior.model import Prior
from d3hr.prior.networks import SCHEDULER_CONFIG, fitting_image_size, new_autoencoder, new_transformer
from d3hr.prior.optimization import Curve, Indices, Process, optimise
from d3hr.prior.presets import PriorPreset, Training, prior_preset
from d3hr.prior.schedule import Schedule
from d3hr.progress import SILENT, Progress
from d3hr.seeds import derive_seed
from d3hr.staging import StagedFolder, write_bytes, write_json

AUTOENCODER_SHARE = 0.25
"""Share of ``max_minutes`` that the autoencoder gets."""
_ENDLESS = 10**9


def fit_prior(
    images: ImageData,
    out: str | Path,
    *,
    preset: str = "tiny",
    steps: int | None = None,
    autoencoder_steps: int | None = None,
    max_minutes: float | None = None,
    image_size: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    seed: int = 0,
    progress: Progress = SILENT,
) -> Prior:
    """Fit a prior to a data set and save it as a diffusers ``DiTPipeline`` folder.

    A run that was stopped goes on from its last checkpoint when called again with the same arguments. Beside the pipeline,
    ``fit.json`` holds the settings and the reconstruction error, ``loss.csv`` the loss curves.

    Args:
        images: training images.
        out: folder to write.
        preset: ``tiny``, ``small`` or ``base``.
        steps: optimiser steps of the transformer, instead of the preset's.
        autoencoder_steps: optimiser steps of the autoencoder, instead of the preset's.
        max_minutes: train for this time (a quarter of it the autoencoder) instead of the preset's steps, or until ``steps`` if given;
            results then depend on the machine's speed.
        image_size: side in pixels; by default that of the images, to the next multiple of 8 within the preset's range.
        precision: arithmetic of the networks during training.
        seed: seed of weights, order and noise.
        progress: where to report.

    Raises:
        SettingsError: an argument is out of range.
        OutputError: ``out`` holds something else.
        NumericalError: the loss became infinite.
    """
    from accelerate import Accelerator

    chosen = _adapted(prior_preset(preset), steps, autoencoder_steps, timed=max_minutes is not None)
    if max_minutes is not None and max_minutes <= 0:
        raise SettingsError("--max_minutes must be positive.", found=f"{max_minutes}", do="give the minutes to train for.")
    size = fitting_image_size(chosen, images.image_size) if image_size is None else image_size
    if not chosen.min_image_size <= size <= chosen.max_image_size:
        raise SettingsError(
            f"Preset {preset!r} does not take this image size.",
            found=f"{size} pixels",
            do=f"use {chosen.min_image_size} to {chosen.max_image_size} pixels, or another preset.",
        )
    key = {
        "kind": "prior",
        "data": images.fingerprint,
        "preset": preset,
        "settings": chosen.model_dump(mode="json"),
        "max_minutes": max_minutes,
        "image_size": size,
        "precision": precision,
        "seed": seed,
    }
    stage = StagedFolder(out, key)
    if stage.resumed:
        progress.say(f"going on with {stage.path}")
    if not stage.finished:
        process = Accelerator(mixed_precision="no")  # its precision is global to the interpreter, ours belongs to the run
        work = stage.path / "checkpoints"
        _fit(_Fit(images.at_size(size), chosen, seed, precision == "bf16", process, work, progress), stage, max_minutes)
        process.wait_for_everyone()
    return Prior.from_pretrained(stage.out)


@dataclass(frozen=True)
class _Fit:
    """One fit under way: what both networks are trained with."""

    images: ImageData
    preset: PriorPreset
    seed: int
    bf16: bool
    process: Process
    work: Path
    progress: Progress

    def autoencoder(self, vae: Any, max_seconds: float | None) -> Curve:
        """Train the autoencoder on the images."""
        training = self.preset.autoencoder_training
        order = self._order("autoencoder", training)

        def load(step: int) -> Tensor:
            return self.images.gather(self._share(order.at(step)))[0]

        def loss(model: nn.Module, batch: Tensor, noise: torch.Generator) -> Tensor:
            return torch.as_tensor(model(batch.to(self.process.device), noise))

        model = _AutoencoderLoss(vae.to(memory_format=torch.channels_last), self.preset.kl_weight)
        return self._optimise("autoencoder", model, load, loss, training, max_seconds)

    def transformer(self, transformer: Any, latents: Latents, scale: float, max_seconds: float | None) -> Curve:
        """Minimise |eps - eps_theta(z_t, t, y)|^2 (DDPM, arXiv 2006.11239, eq. 14), the class dropped for a share of the images."""
        training = self.preset.transformer_training
        order = self._order("transformer", training)
        counts = list(self.images.counts.values())
        label_at = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        signal = Schedule.from_config(SCHEDULER_CONFIG).alphas_cumprod.float().to(self.process.device)

        def load(step: int) -> tuple[Tensor, Tensor]:
            positions = self._share(order.at(step))
            return latents.gather(positions) * scale, label_at[positions]

        def loss(model: nn.Module, batch: tuple[Tensor, Tensor], noise: torch.Generator) -> Tensor:
            z, y = (part.to(self.process.device) for part in batch)
            t = torch.randint(len(signal), (len(z),), generator=noise, device=z.device)
            eps = torch.randn(z.shape, generator=noise, device=z.device)
            drop = torch.rand(len(z), generator=noise, device=z.device) < self.preset.label_dropout
            alpha = signal[t].view(-1, 1, 1, 1)
            noisy = alpha.sqrt() * z + (1 - alpha).sqrt() * eps
            predicted = model(noisy, timestep=t, class_labels=torch.where(drop, len(counts), y), return_dict=False)[0]
            return F.mse_loss(predicted.float(), eps)

        # diffusers' DiT drops labels by itself in training mode, in every block apart from the others: evaluation mode leaves it to us.
        return self._optimise("transformer", transformer.eval(), load, loss, training, max_seconds)

    def _order(self, network: str, training: Training) -> Indices:
        return Indices(len(self.images), training.batch_size, derive_seed(self.seed, network, "order"))

    def _share(self, positions: Tensor) -> Tensor:
        return positions[self.process.process_index :: self.process.num_processes]

    def _optimise(self, network: str, model: nn.Module, load: Any, loss: Any, training: Training, max_seconds: float | None) -> Curve:
        return optimise(
            model,
            load,
            loss,
            training=training,
            seed=derive_seed(self.seed, network),
            max_seconds=max_seconds,
            bf16=self.bf16,
            process=self.process,
            checkpoint=self.work / f"{network}.safetensors",
            progress=self.progress,
            title=network,
        )


def _fit(fit: _Fit, stage: StagedFolder, max_minutes: float | None) -> None:
    """Train both networks and complete the staged folder."""
    images, preset = fit.images, fit.preset
    seconds = None if max_minutes is None else 60 * max_minutes
    fit.work.mkdir(exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(fit.seed, "weights"))
        vae = new_autoencoder(preset, images.image_size)
        transformer = new_transformer(preset, images.image_size, len(images.class_names))
    curves = {"autoencoder": fit.autoencoder(vae, seconds and AUTOENCODER_SHARE * seconds)}
    vae.eval().requires_grad_(False)
    latents = Latents(images, lambda batch: _encode(vae, batch.to(fit.process.device)), fit.work / "latents", fit.progress)
    scale = 1 / latents.root_mean_square()
    vae.register_to_config(scaling_factor=scale)
    curves["transformer"] = fit.transformer(transformer, latents, scale, seconds and seconds - curves["autoencoder"].seconds)
    if fit.process.is_main_process:
        prior = Prior(transformer, vae, SCHEDULER_CONFIG, images.class_names)
        prior.save_pretrained(stage.path)
        about = {
            "data": {"source": images.source, "split": images.split, "images": len(images), "skipped": len(images.skipped)},
            "reconstruction_psnr_db": _reconstruction_psnr(prior, images),
            "seconds": {network: round(curve.seconds, 1) for network, curve in curves.items()},
            "steps": {network: curve.steps for network, curve in curves.items()},
        }
        write_json(stage.path / "fit.json", about)
        write_bytes(stage.path / "loss.csv", _loss_table(curves))
        stage.publish(without=[fit.work.name])


class _AutoencoderLoss(nn.Module):
    """|x - x'| + (x - x')^2 + w KL, with x' decoded from a sample of the posterior; errors averaged over values, the KL over images."""

    def __init__(self, vae: Any, kl_weight: float) -> None:
        super().__init__()
        self.vae, self.kl_weight = vae, kl_weight

    def forward(self, x: Tensor, noise: torch.Generator) -> Tensor:
        posterior = self.vae.encode(x).latent_dist
        error = self.vae.decode(posterior.sample(noise)).sample.float() - x
        value: Tensor = error.abs().mean() + error.square().mean() + self.kl_weight * posterior.kl().mean()
        return value


def _adapted(preset: PriorPreset, steps: int | None, autoencoder_steps: int | None, *, timed: bool) -> PriorPreset:
    """Return the preset with other numbers of steps; a timed fit has no other end than those given."""
    changes: dict[str, Training] = {}
    for flag, name, wanted in (
        ("--steps", "transformer_training", steps),
        ("--autoencoder_steps", "autoencoder_training", autoencoder_steps),
    ):
        if wanted is None and not timed:
            continue
        if wanted is not None and wanted < 1:
            raise SettingsError(f"{flag} must be at least 1.", found=f"{wanted}", do="give the number of optimiser steps.")
        changes[name] = getattr(preset, name).model_copy(update={"steps": wanted or _ENDLESS})
    return preset.model_copy(update=changes)


@torch.no_grad()
def _encode(vae: Any, images: Tensor) -> Tensor:
    return torch.as_tensor(vae.encode(images).latent_dist.mode())


def _reconstruction_psnr(prior: Prior, images: ImageData, sample: int = 256) -> float:
    """Return the PSNR, in dB of the range [-1, 1], of encode and decode over evenly spaced training images."""
    positions = torch.linspace(0, len(images) - 1, min(sample, len(images))).round().long()
    x = images.gather(positions)[0]
    error = torch.cat([F.mse_loss(prior.decode(prior.encode(part)).cpu(), part)[None] for part in x.split(64)]).mean()
    return round(10 * math.log10(4 / max(float(error), 1e-12)), 2)


def _loss_table(curves: dict[str, Curve]) -> bytes:
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["network", "step", "loss"])
    for name, curve in curves.items():
        table.writerows([name, step, f"{value:.6g}"] for step, value in curve.points)
    return buffer.getvalue().encode()
