"""``d3hr fit``: a diffusion prior of one's own classes."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3hr.cli.options import AS_THE_PRESET, READING, FitFlags, Reading, say_licence
from d3hr.cli.output import Result
from d3hr.errors import D3hrError, SettingsError
from d3hr.progress import OnTerminal, is_first_process

if TYPE_CHECKING:
    from d3hr.data.dataset import ImageData
    from d3hr.diagnostics.checks import Verdict
    from d3hr.prior.model import Prior
    from d3hr.progress import Progress

SHEET = "samples.png"
"""Real, reconstructed and drawn images, in the folder of a prior."""


def fit(
    data: str,
    *,
    out: str,
    preset: str = "tiny",
    init: str | None = None,
    autoencoder: str = "auto",
    class_map: str | None = None,
    prompt: str | None = None,
    split: str | None = None,
    latent_cache: str | None = None,
    training: FitFlags = AS_THE_PRESET,
    reading: Reading = READING,
) -> Result:
    """Fit a diffusion prior to your images: from scratch, or from a pretrained prior (--init).

    Args:
        data: folder of class folders, archive, parquet or .npz file, Hub id, or digits
        out: folder to write the prior to (a diffusers pipeline)
        preset: tiny (8 to 32 px, minutes on a CPU), compact (16 to 64 px, an hour on a CPU), small (16 to 64 px), base (32 to 256 px, GPU)
        init: pretrained prior to start from, such as facebook/DiT-XL-2-256
        autoencoder: folder or Hub id of an autoencoder to use as it is; own (trained); or auto: madebyollin/taesd where it can be had and
            keeps what is in the images, else own; with --init, that of the prior
        class_map: with --init, YAML file of lines "class: class of the pretrained prior to start as", or "class: prompt"
        prompt: with --init, prompt of each class, {name} its name, for text-to-image priors; by default 'a photo of a {name}'
        split: train, validation, test, ...; train by default
        latent_cache: folder that keeps the encoded images for other fits
        training: how the networks are trained
        reading: how images are read
    """
    from d3hr.fileio.staging import require_free_or_ours
    from d3hr.prior.class_matching import read_class_map
    from d3hr.prior.fit import fit_prior
    from d3hr.prior.given_autoencoder import FACTOR
    from d3hr.prior.model import Prior
    from d3hr.prior.settings import AUTO, OWN, fit_settings, fitting_image_size

    named = read_class_map(class_map) if class_map else None
    settings: dict[str, Any] = {"preset": preset, "class_map": named, **dict(training)}
    checked = fit_settings(init=init, autoencoder=autoencoder, **settings)  # refuses wrong settings before any image is read
    if init is None and checked.image_size is not None and autoencoder in (AUTO, OWN):
        fitting_image_size(checked, checked.image_size, FACTOR if autoencoder == AUTO else None)
    if prompt and not init:
        raise SettingsError("--prompt is for --init.", found="no --init", hint="give a text-to-image prior to start from.")
    require_free_or_ours(out)
    progress = OnTerminal()
    other = None if autoencoder == AUTO else autoencoder
    base = Prior.from_pretrained(init, device="cpu", autoencoder=other, prompt=prompt) if init else None
    if base:
        say_licence(base, progress)
    images = reading.load(data, split, progress)
    prior = fit_prior(images, out, init=base, autoencoder=autoencoder, latent_cache=latent_cache, progress=progress, **settings)
    verdict = _judged(reading, images, prior, Path(out), progress)
    text = (
        f"Prior of {len(images.class_names)} classes at {prior.image_size} px in {out} (loss curve: {out}/loss.csv).\n"
        f"{verdict.as_text()}\nReal, reconstructed and drawn images next to each other: {out}/{SHEET}\n"
        f"Next: d3hr distill {data} --prior {out} --out SET" + ("" if init else " --preset mixture")
    )
    values = {
        "out": out,
        "classes": list(images.class_names),
        "image_size": prior.image_size,
        "fingerprint": prior.fingerprint,
        "verdict": asdict(verdict),
    }
    return Result(text, values, Path(out))


def _judged(reading: Reading, images: ImageData, prior: Prior, folder: Path, progress: Progress) -> Verdict:
    """Write the pictures that show how good a fitted prior is, and the verdict on it, and return the verdict."""
    from d3hr.diagnostics.gate import prior_gate, write_verdict
    from d3hr.diagnostics.roundtrip import prior_sheet
    from d3hr.fileio.atomic import write_bytes

    held_out = _held_out(reading, images, progress)
    tested = images if held_out is None else held_out
    where = "the training images" if held_out is None else f"split {held_out.split}"
    verdict = prior_gate(prior, tested, conditioning=prior.denoiser.match(tested.class_names, of=tested.source))
    verdict = replace(verdict, evidence=f"on {where}: {verdict.evidence}")
    if is_first_process():
        write_bytes(folder / SHEET, prior_sheet(images, prior))
        write_verdict(folder, verdict)
    return verdict


def _held_out(reading: Reading, images: ImageData, progress: Progress) -> ImageData | None:
    """Return the images of the source's validation split, if it has one of the same classes."""
    from d3hr.data.splits import held_out_split

    name = held_out_split(images.splits, images.split, "validation")
    try:
        found = reading.load(images.source, name, progress, test=True) if name else None
    except D3hrError as error:
        progress.say(f"the prior is judged on its training images: {error.what}")
        return None
    return found if found and set(found.class_names) == set(images.class_names) else None
