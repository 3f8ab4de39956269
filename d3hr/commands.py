"""The commands: typed functions from what a person types to the library and back. They return what is to be shown and print nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from d3hr.data import ImageData, load_images
from d3hr.errors import DataError, PriorError, SettingsError
from d3hr.progress import OnTerminal

BadImage = Literal["error", "skip"]


@dataclass(frozen=True)
class Result:
    """What a command has to say.

    Attributes:
        text: for people.
        values: the same for machines, as JSON values.
        folder: where the effective settings are saved, if the command wrote something.
    """

    text: str
    values: dict[str, Any]
    folder: Path | None = None


def inspect(
    data: str,
    *,
    split: str | None = None,
    on_bad_image: BadImage = "error",
    image_column: str | None = None,
    label_column: str | None = None,
) -> Result:
    """Read every image once and say what is there: classes, counts, sizes, files that cannot be read.

    Args:
        data: folder of class folders, folder of parquet files, Hub id, or digits
        split: train, validation, test, ...; train by default
        on_bad_image: stop at unreadable images, or leave them out and count them
        image_column: column of images of a parquet or Hub source
        label_column: column of classes of a parquet or Hub source
    """
    images = Reading(on_bad_image, image_column, label_column, OnTerminal()).load(data, split)
    values = {
        "source": images.source,
        "split": images.split,
        "images": len(images),
        "classes": images.counts,
        "sizes": {f"{width}x{height}": count for (width, height), count in sorted(images.sizes.items())},
        "skipped": list(images.skipped),
        "ignored": list(images.ignored),
        "fingerprint": images.fingerprint,
    }
    return Result("\n".join(f"{count:>9,}  {name}" for name, count in images.counts.items()), values)


def fit(
    data: str,
    *,
    out: str,
    preset: str = "tiny",
    split: str | None = None,
    steps: int | None = None,
    autoencoder_steps: int | None = None,
    max_minutes: float | None = None,
    image_size: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    seed: int = 0,
    on_bad_image: BadImage = "error",
    image_column: str | None = None,
    label_column: str | None = None,
) -> Result:
    """Fit a diffusion prior to your images: an autoencoder, then a class-conditional diffusion transformer.

    Args:
        data: folder of class folders, folder of parquet files, Hub id, or digits
        out: folder to write the prior to (a diffusers DiTPipeline)
        preset: tiny (8 to 32 px, minutes on a CPU), small (16 to 64 px), base (32 to 256 px, GPU)
        split: train, validation, test, ...; train by default
        steps: optimiser steps of the transformer
        autoencoder_steps: optimiser steps of the autoencoder
        max_minutes: train for this time instead of the preset's steps
        image_size: side in pixels; by default that of the images, to the next multiple of 8
        precision: arithmetic of the networks
        seed: seed of weights, order and noise
        on_bad_image: stop at unreadable images, or leave them out and count them
        image_column: column of images of a parquet or Hub source
        label_column: column of classes of a parquet or Hub source
    """
    from d3hr.prior.training import fit_prior

    progress = OnTerminal()
    images = Reading(on_bad_image, image_column, label_column, progress).load(data, split)
    prior = fit_prior(
        images,
        out,
        preset=preset,
        steps=steps,
        autoencoder_steps=autoencoder_steps,
        max_minutes=max_minutes,
        image_size=image_size,
        precision=precision,
        seed=seed,
        progress=progress,
    )
    text = (
        f"Prior of {len(prior.class_names)} classes at {prior.image_size} px in {out} (loss curve: {out}/loss.csv).\n"
        f"Next: d3hr distill {data} --prior {out} --out SET"
    )
    values = {"out": out, "classes": list(prior.class_names), "image_size": prior.image_size, "fingerprint": prior.fingerprint}
    return Result(text, values, Path(out))


def distill(
    data: str,
    *,
    prior: str,
    out: str,
    ipc: int = 10,
    preset: str = "paper",
    split: str | None = None,
    steps: int | None = None,
    level: int | None = None,
    statistics_level: int | None = None,
    denoising_level: int | None = None,
    inversion_guidance: float | None = None,
    denoising_guidance: float | None = None,
    solver: Literal["ddim", "fixed_point"] | None = None,
    strategy: Literal["search", "exact", "random"] | None = None,
    num_candidates: int | None = None,
    weights: tuple[float, float, float] | None = None,
    skewness: Literal["per_dimension", "per_image"] | None = None,
    exact_std: Literal["unbiased", "population"] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    on_bad_image: BadImage = "error",
    image_column: str | None = None,
    label_column: str | None = None,
) -> Result:
    """Distil a data set into a few images per class. Settings left out are the preset's.

    Args:
        data: folder of class folders, folder of parquet files, Hub id, or digits
        prior: folder or Hub id of a diffusion prior that knows the classes by name
        out: folder to write the distilled set to
        ipc: images per class
        preset: paper, released, or gentle (for priors fitted in minutes)
        split: train, validation, test, ...; train by default
        steps: points of the sampling grid
        level: level of statistics and of denoising, both
        statistics_level: level at which the class statistics are taken
        denoising_level: level from which groups are denoised
        inversion_guidance: guidance scale of inversion
        denoising_guidance: guidance scale of denoising
        solver: ddim, or fixed_point for the exact inverse of denoising
        strategy: search (best of many random groups), exact (standardised to the moments) or random
        num_candidates: candidate groups of a search
        weights: weights of the mean, std and skewness terms
        skewness: per_dimension (paper) or per_image (released code)
        exact_std: which standard deviation an exact group has
        batch_size: images in one network call
        seed: seed of the group draws
        on_bad_image: stop at unreadable images, or leave them out and count them
        image_column: column of images of a parquet or Hub source
        label_column: column of classes of a parquet or Hub source
    """
    from d3hr.distillation.pipeline import distill as distill_images
    from d3hr.distillation.settings import distill_settings

    if level is not None and (statistics_level is not None or denoising_level is not None):
        raise SettingsError(
            "--level sets both levels.",
            found="--level beside --statistics_level or --denoising_level",
            do="give --level, or the other two.",
        )
    changes = {
        "steps": steps,
        "statistics_level": statistics_level if level is None else level,
        "denoising_level": denoising_level if level is None else level,
        "inversion_guidance": inversion_guidance,
        "denoising_guidance": denoising_guidance,
        "solver": solver,
        "strategy": strategy,
        "num_candidates": num_candidates,
        "weights": weights,
        "skewness": skewness,
        "exact_std": exact_std,
        "batch_size": batch_size,
    }
    distill_settings(preset, ipc=ipc, seed=seed, **changes)  # complains before any image is read
    progress = OnTerminal()
    loaded = _load_prior(prior)
    images = Reading(on_bad_image, image_column, label_column, progress).load(data, split)
    distilled = distill_images(images, loaded, out, ipc=ipc, preset=preset, seed=seed, progress=progress, **changes)
    text = (
        f"{ipc} image(s) of each of {len(distilled.class_names)} classes in {out} (look at {out}/contact-sheet.png).\n"
        f"Next: d3hr evaluate {out} --test DATA --test_split test"
    )
    return Result(text, _set_values(distilled), Path(out))


def expand(distilled: str, *, out: str, ipc: int, prior: str | None = None, seed: int | None = None) -> Result:
    """Make a set of another IPC from the statistics of a distilled set; no real image is needed.

    Args:
        distilled: a distilled set
        out: folder to write the new set to
        ipc: images per class
        prior: folder or Hub id of the prior, by default where it was when the set was made
        seed: seed of the group draws, by default that of the set
    """
    from d3hr.distillation.pipeline import expand as expand_set
    from d3hr.storage import DistilledSet

    source = DistilledSet.load(distilled)
    where = prior or source.manifest.prior.get("source")
    if where is None:
        raise PriorError("The set does not tell which prior it was made with.", found="no prior in its manifest", do="give --prior.")
    expanded = expand_set(source, _load_prior(where), out, ipc=ipc, seed=seed, progress=OnTerminal())
    return Result(f"{ipc} image(s) of each of {len(expanded.class_names)} classes in {out}.", _set_values(expanded), Path(out))


def evaluate(
    distilled: str,
    *,
    test: str,
    test_split: str | None = None,
    data: str | None = None,
    split: str | None = None,
    prior: str | None = None,
    student: str = "convnet3",
    protocol: str = "hard",
    seeds: Sequence[int] = (0, 1, 2),
    out: str | None = None,
    on_bad_image: BadImage = "error",
    image_column: str | None = None,
    label_column: str | None = None,
) -> Result:
    """Train a student on a distilled set and test it, beside random real images and images drawn from the prior.

    Args:
        distilled: a distilled set
        test: the real images to test on
        test_split: split of the test images
        data: the real images to draw the random baseline from, by default those the set was made from
        split: split of those images
        prior: the prior to draw the other baseline from, by default the one the set was made with
        student: network to train
        protocol: hard (1,000 steps) or quick (200 steps)
        seeds: training seeds; each baseline is drawn anew for each
        out: folder for baselines and results, by default DISTILLED-evaluation
        on_bad_image: stop at unreadable images, or leave them out and count them
        image_column: column of images of a parquet or Hub source
        label_column: column of classes of a parquet or Hub source
    """
    from d3hr.evaluation.comparison import compare_with_baselines, verdicts
    from d3hr.evaluation.protocols import protocol_named
    from d3hr.evaluation.tables import accuracy_table
    from d3hr.storage import DistilledSet

    chosen = protocol_named(protocol)
    progress = OnTerminal()
    subject = DistilledSet.load(distilled)
    manifest = subject.manifest
    reading = Reading(on_bad_image, image_column, label_column, progress)
    source = data or manifest.data.get("source")
    where = prior or manifest.prior.get("source")
    folder = Path(out) if out else subject.path.with_name(subject.path.name + "-evaluation")
    real_split = split or (manifest.data.get("split") if data is None else None)
    with _or_else("--data", "The random-real row needs the images that the set was made from."):
        real = reading.load(source, real_split) if source else None
    with _or_else("--prior", "The prior-only row needs the prior that the set was made with."):
        loaded = _load_prior(where) if where else None
    rows = compare_with_baselines(
        subject,
        reading.load(test, test_split),
        folder,
        real=real,
        prior=loaded,
        student=student,
        protocol=chosen,
        seeds=seeds,
        progress=progress,
    )
    text = "\n".join([accuracy_table(rows), *verdicts(rows), f"Kept in {folder}/results.json."])
    return Result(text, {"out": str(folder), "results": [row.as_row() for row in rows], "verdicts": verdicts(rows)}, folder)


def demo(*, out: str = "d3hr-demo", seed: int = 0) -> Result:
    """Show the whole way on real handwritten digits: fit a prior, distil IPC 1 and 10, measure against baselines, write one page.

    Args:
        out: folder to write
        seed: seed of everything
    """
    from d3hr.demo import run_demo

    return Result(*run_demo(Path(out), seed=seed, progress=OnTerminal()), Path(out))


@dataclass(frozen=True)
class Reading:
    """How the image sources of a command are read."""

    on_bad_image: BadImage
    image_column: str | None
    label_column: str | None
    progress: OnTerminal

    def load(self, source: str, split: str | None) -> ImageData:
        """Open a source and report what is in it."""
        images = load_images(
            source,
            split=split,
            on_bad_image=self.on_bad_image,
            image_column=self.image_column,
            label_column=self.label_column,
            progress=self.progress,
        )
        self.progress.say(_about(images))
        return images


@contextmanager
def _or_else(flag: str, what: str) -> Iterator[None]:
    """Tell, where something named in a manifest is no longer there, which flag gives its new place."""
    try:
        yield
    except (DataError, PriorError) as error:
        kind = PriorError if isinstance(error, PriorError) else DataError
        raise kind(what, found=error.what, do=f"tell where it is with {flag}.") from error


def _load_prior(name: str) -> Any:
    from d3hr.prior.model import Prior

    return Prior.from_pretrained(name)


def _about(images: ImageData) -> str:
    split = f", split {images.split}" if images.split else ""
    sizes = sorted(images.sizes)
    extent = f"{sizes[0][0]}x{sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} sizes from {min(sizes)} to {max(sizes)}"
    lines = [
        f"{images.source}{split}: {len(images):,} images of {len(images.class_names)} classes, {extent}, read at {images.image_size} px"
    ]
    lines += [f"left out, unreadable: {reason}" for reason in images.skipped]
    if images.ignored:
        lines.append(f"ignored, no PNG, JPEG or WebP: {len(images.ignored)} file(s), such as {images.ignored[0]}")
    return "\n".join(lines)


def _set_values(distilled: Any) -> dict[str, Any]:
    manifest = distilled.manifest
    return {"out": str(distilled.path), "ipc": manifest.ipc, "classes": list(distilled.class_names), "settings": manifest.settings}
