"""Fits a prior to a data set: from scratch, with a given autoencoder, or from a pretrained prior."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from d3hr.data.dataset import OPEN_IMAGES, ImageData
from d3hr.data.decoded import decoded
from d3hr.errors import SettingsError, require_kind
from d3hr.fileio.atomic import load_or_make, write_bytes, write_json
from d3hr.fileio.checksums import fingerprint
from d3hr.fileio.staging import StagedFolder, kept_key
from d3hr.prior.adapters import merge_lora
from d3hr.prior.autoencoder import downsampling, psnr_db, train_autoencoder
from d3hr.prior.conditions import Condition
from d3hr.prior.families.dit import DiT
from d3hr.prior.fine_tuning import pretrained_copy
from d3hr.prior.fit_context import FitContext
from d3hr.prior.given_autoencoder import autoencoder_of
from d3hr.prior.latent_cache import Latents
from d3hr.prior.model import Prior
from d3hr.prior.networks import SCHEDULER_CONFIGS, default_device, new_autoencoder, new_transformer
from d3hr.prior.precision import WIDE, Units, training_precision
from d3hr.prior.presets import AUTOENCODER_SHARE
from d3hr.prior.schedules.flow_matching import FlowMatching
from d3hr.prior.schedules.schedule import TrainableSchedule
from d3hr.prior.settings import AUTO, OBJECTIVE, FitSettings, fit_settings, fitting_image_size
from d3hr.prior.trainer import Curve
from d3hr.prior.transformer import train_transformer
from d3hr.progress import BY_DEFAULT, InSteps, Progress
from d3hr.seeds import derive_seed, seeded

if TYPE_CHECKING:
    from accelerate import Accelerator

_LEAST_SECONDS = 1e-3
"""Seconds for the transformer, at least."""


def fit_prior(
    images: ImageData,
    out: str | Path,
    *,
    preset: str = "tiny",
    init: Prior | str | Path | None = None,
    autoencoder: str | Path = AUTO,
    latent_cache: str | Path | None = None,
    seed: int = 0,
    progress: Progress = BY_DEFAULT,
    **changes: Any,
) -> Prior:
    """Fit a prior to a data set and save it as a folder in the layout of a diffusers pipeline.

    From scratch, an autoencoder is trained and then a transformer on its latents; with a given autoencoder, only the transformer. From a
    pretrained prior, its transformer is trained further, with a label table of the data's classes, on latents of the prior's autoencoder.
    A run that was stopped continues from its last checkpoint when called again with the same arguments; under ``accelerate launch`` several
    processes share the work. Next to the pipeline, ``fit.json`` holds data, starting point, steps, seconds and the reconstruction error,
    and ``loss.csv`` the loss curves.

    Args:
        images: training images.
        out: folder to write.
        preset: ``tiny``, ``compact``, ``small`` or ``base``; with ``init`` it has no effect.
        init: pretrained prior to start from: a folder, a Hub id such as ``facebook/DiT-XL-2-256``, or a loaded prior, which is not changed.
            A text-to-image prior is trained on the prompts of the classes, by adapters unless ``adapt`` is ``full``.
        autoencoder: folder or Hub id of an autoencoder whose weights stay as they are; ``own``, which is trained; or ``auto``: that of
            ``init``, or else a pretrained one where it can be had and suits the images
            (:func:`~d3hr.prior.given_autoencoder.autoencoder_of`). Which one it is, and why, ``fit.json`` says.
        latent_cache: folder that keeps the encoded images for other fits of the same data and autoencoder; by default they are not kept.
        seed: seed of weights, order and noise.
        progress: where to report.
        changes: settings that differ from the default, by the names of :class:`~d3hr.prior.settings.FitSettings`.

    Raises:
        SettingsError: a setting is unknown, out of range, or contradicts another.
        PriorError: ``init`` or ``autoencoder`` cannot be loaded.
        ClassMismatch: a class could be several of the pretrained prior's, or the class map names a class that does not exist.
        OutputError: ``out`` or ``latent_cache`` holds something else, or another run works on ``out``.
        DamagedFile: ``out`` is finished, but its files are not what was written.
        NumericalError: the loss is not finite.
    """
    from accelerate import Accelerator

    require_kind("images", images, ImageData, OPEN_IMAGES)
    name = (init.source or "a prior in memory") if isinstance(init, Prior) else init and str(init)
    settings = fit_settings(preset=preset, init=name, autoencoder=str(autoencoder), seed=seed, **changes)
    # Mixed precision is the trainer's: accelerate's is global to the interpreter. Without cpu=True it would not connect processes on CPUs.
    process = Accelerator(mixed_precision="no", cpu=default_device().type == "cpu")
    _check_batches(settings, process)
    pretrained, began_as, reason = dict[str, str](), dict[str, str](), None
    objective = None if init else settings.objective or OBJECTIVE
    if init is not None:
        other = None if settings.autoencoder == AUTO else autoencoder
        base = init if isinstance(init, Prior) else Prior.from_pretrained(init, device="cpu", autoencoder=other)
        pretrained["init"] = base.fingerprint
        settings = settings.model_copy(update={"adapt": settings.adapt or ("lora" if base.denoiser.given_text else "full")})
        prior, began_as = pretrained_copy(settings, images.class_names, base, of=images.source)
        if base.denoiser.given_text:
            pretrained.update({f"prompt of {name}": prompt for name, prompt in began_as.items()})
    else:
        settings = settings.model_copy(update={"adapt": "full"})
        given = autoencoder_of(settings, images, out, process, progress)
        settings, reason = settings.model_copy(update={"autoencoder": given.name}), given.reason
        if given.vae is not None:
            pretrained["autoencoder"] = fingerprint([given.vae], dict(given.vae.config))
        prior = _untrained(settings, images.class_names, images.image_size, given.vae)
    key = {
        "kind": "prior",
        "data": images.fingerprint,
        "pretrained": pretrained,
        "image_size": prior.image_size,
        "training": settings.transformer_training.model_dump(mode="json"),
        "preset": settings.networks.model_dump(mode="json") if init is None else None,
    }
    with process.main_process_first():
        settings = settings.model_copy(update={"precision": _precision(settings, out, process.device, prior.network)})
        decided = settings.model_dump(mode="json", exclude={"init", "autoencoder"}) | {"objective": objective}
        stage = StagedFolder(out, key | {"settings": decided}, leading=process.is_main_process)
    process.wait_for_everyone()
    with stage:
        stage.report(progress)
        if not stage.finished:
            if images.image_size != prior.image_size:
                progress.say(f"images of {images.image_size} px (median) are read at {prior.image_size} px, the side of this prior")
            work = stage.path / "checkpoints"
            work.mkdir(exist_ok=True)
            if process.is_main_process:  # a run that goes on says why it was decided in the first place
                reason = load_or_make(work / "autoencoder.json", lambda: {"reason": reason})["reason"]
            steps = [*(["decoding images", "autoencoder"] if settings.trains_autoencoder else []), "encoding images", "transformer"]
            context = FitContext(seed, settings.precision == "bf16", process, work, InSteps(progress, steps))
            sized = images.at_size(prior.image_size)
            matches = prior.denoiser.match(images.class_names, of=images.source, class_map=began_as if prior.denoiser.given_text else None)
            conditions = list(prior.denoiser.conditions(matches).values())
            curves = _train(prior, settings, conditions, sized, context, Path(latent_cache) if latent_cache else work / "latents")
            if process.is_main_process:
                _write(stage.path, prior, began_as, settings, reason, sized, curves)
                stage.commit(exclude=[work.name])
            process.wait_for_everyone()
    return Prior.from_pretrained(stage.out)


def _untrained(settings: FitSettings, class_names: Sequence[str], image_size: int, vae: Any | None) -> Prior:
    """Return a prior of untrained networks of the settings' preset, with the autoencoder ``vae`` if there is one."""
    size = fitting_image_size(settings, image_size, vae and downsampling(vae))
    with seeded(derive_seed(settings.seed, "weights")):
        autoencoder = vae or new_autoencoder(settings.networks, size)
        factor = downsampling(autoencoder)
        if size % factor:
            raise SettingsError(
                "The autoencoder cannot take this image size.",
                found=f"{size} pixels",
                hint=f"give an --image-size that is a multiple of {factor}.",
            )
        transformer = new_transformer(settings.networks, (autoencoder.config.latent_channels, size // factor), len(class_names))
    prior = Prior(DiT(transformer, class_names), autoencoder, SCHEDULER_CONFIGS[settings.objective or OBJECTIVE])
    transformer.requires_grad_(True)
    return prior


def _precision(settings: FitSettings, out: str | Path, device: torch.device, transformer: Any) -> str:
    """Return the precision to train in; for ``auto``, that of the run that is continued, even on another machine."""
    if settings.precision != "auto":
        return settings.precision
    kept = kept_key(out).get("settings", {}).get("precision")
    return str(kept or training_precision(Units.of(device), getattr(transformer, "inner_dim", WIDE)))


def _check_batches(settings: FitSettings, process: Accelerator) -> None:
    for training in (settings.transformer_training, settings.autoencoder_training):
        if training.batch_size % process.num_processes:
            process.wait_for_everyone()  # the first would leave before others have found it
            raise SettingsError(
                "A batch cannot be shared out evenly.",
                found=f"{training.batch_size} images, {process.num_processes} processes",
                hint=f"give a --batch-size that is a multiple of {process.num_processes}, or start another number of processes.",
            )


def _train(
    prior: Prior, settings: FitSettings, conditions: Sequence[Condition], images: ImageData, context: FitContext, latent_cache: Path
) -> dict[str, Curve]:
    """Train the networks of a prior, in place, and return their loss curves; of the transformer, the parameters that need a gradient."""
    vae, transformer, curves, scale = prior.vae, prior.network, {}, 1.0
    seconds = settings.max_minutes and 60 * settings.max_minutes
    if settings.trains_autoencoder:
        images = decoded(images, context.folder, context.progress)
        curves["autoencoder"] = train_autoencoder(
            vae,
            images,
            context,
            settings=settings.autoencoder_training,
            kl_weight=settings.networks.kl_weight,
            max_seconds=seconds and AUTOENCODER_SHARE * seconds,
        )
        # One slow step may have taken longer than all the time, and a time below zero would have no end.
        seconds = seconds and max(seconds - curves["autoencoder"].seconds, _LEAST_SECONDS)
        vae.register_to_config(scaling_factor=1.0)
    latents = Latents(images, vae.to(context.process.device), latent_cache, context.process, context.progress)
    if settings.init is None:
        scale = 1 / latents.root_mean_square()
        vae.register_to_config(scaling_factor=scale * vae.config.scaling_factor)
    if settings.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    curves["transformer"] = train_transformer(
        prior.denoiser,
        conditions,
        latents,
        list(images.counts.values()),
        context,
        schedule=training_schedule(prior),
        settings=settings.transformer_training,
        scale=scale,
        max_seconds=seconds,
    )
    if settings.adapt == "lora":
        merge_lora(transformer)
    transformer.requires_grad_(False)
    return curves


def training_schedule(prior: Prior) -> TrainableSchedule:
    """Return the schedule at whose times a prior is trained: its own, but without the shift of a flow's levels towards noise.

    Sets are drawn from low levels, which a shifted training would hardly see.
    """
    schedule = prior.schedule
    assert isinstance(schedule, TrainableSchedule)
    return dataclasses.replace(schedule, shift=1.0) if isinstance(schedule, FlowMatching) else schedule


def _write(
    folder: Path,
    prior: Prior,
    began_as: Mapping[str, str],
    settings: FitSettings,
    reason: str | None,
    images: ImageData,
    curves: Mapping[str, Curve],
) -> None:
    """Write the prior, ``fit.json`` and ``loss.csv`` into a folder."""
    prior.save_pretrained(folder)
    about = {
        "data": {"source": images.source, "split": images.split, "images": len(images), "skipped": len(images.skipped)},
        "init": settings.init,
        "autoencoder": None if settings.autoencoder == AUTO else settings.autoencoder,
        "autoencoder_reason": reason,
        "began_as": began_as,
        "reconstruction_psnr_db": _reconstruction_psnr(prior, images),
        "seconds": {network: round(curve.seconds, 1) for network, curve in curves.items()},
        "steps": {network: curve.steps for network, curve in curves.items()},
    }
    write_json(folder / "fit.json", about)
    write_bytes(folder / "loss.csv", _loss_table(curves))


def _reconstruction_psnr(prior: Prior, images: ImageData, sample: int = 256) -> float:
    """Return the PSNR, in dB, of decode(encode(images)) over ``sample`` evenly spaced training images, or all of fewer."""
    positions = torch.linspace(0, len(images) - 1, min(sample, len(images))).round().long()
    x = images.gather(positions)[0]
    decoded = torch.cat([prior.decode(prior.encode(part)).cpu() for part in x.split(64)])
    return round(psnr_db(x, decoded), 2)


def _loss_table(curves: Mapping[str, Curve]) -> bytes:
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["network", "step", "loss"])
    for name, curve in curves.items():
        table.writerows([name, step, f"{value:.6g}"] for step, value in curve.points)
    return buffer.getvalue().encode()
