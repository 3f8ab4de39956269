"""The whole way on real handwritten digits in minutes: fit, distil, compare with baselines, and one page to look at."""

import functools
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from d3hr.comparison.tables import Comparison
from d3hr.comparison.trainings import Entry, Setting, compare_entries
from d3hr.data.dataset import ImageData
from d3hr.data.opening import load_images
from d3hr.distillation.presets import distill_settings
from d3hr.evaluation.protocols import protocol_named
from d3hr.fileio.atomic import atomic_file, read_json
from d3hr.fileio.staging import lock_workdir
from d3hr.methods.prior_only import prior_only
from d3hr.methods.selection import random_real
from d3hr.pipeline import distill, expand
from d3hr.prior.fit import fit_prior
from d3hr.prior.model import Prior
from d3hr.progress import Progress

SETTINGS: dict[int, dict[str, Any]] = {1: {"preset": "mixture", "modes": 1, "temperature": 0.0}, 10: {"preset": "mixture"}}
PRIOR_ONLY_GUIDANCE = {1: 4.0, 10: 1.5}
"""By images per class, as SETTINGS: the best on the digits' validation split (``benchmarks/quality/digits_presets.py``)."""
SHOWN = 10
"""Images per class of the set that is shown."""
DISTILLATION_SEEDS = 6
TRAINING_SEEDS = 1
STUDENT = "convnet3"
PROTOCOL = "quick"
NAMES = {"d3hr": "distilled (d3hr)", "random_real": "random real images", "prior_only": "prior only, no inversion"}
NEXT_STEPS = """d3hr inspect  PHOTOS
d3hr distill  PHOTOS
d3hr evaluate PHOTOS-distilled --test TEST_PHOTOS
d3hr diagnose PHOTOS-distilled"""


def run_demo(out: Path, *, seed: int, progress: Progress) -> tuple[str, dict[str, Any]]:
    """Run the demo into ``out`` and return its summary as text and as JSON values; what an earlier run finished is reused.

    Raises:
        OutputError: ``out`` holds something else.
    """
    started = time.monotonic()
    with lock_workdir(out, {"kind": "demo", "version": version("d3hr"), "seed": seed}):
        images, test = load_images("digits"), load_images("digits", split="test")
        progress.say(f"digits: {len(images):,} real training images of {len(images.class_names)} classes, {len(test)} test images")
        prior = fit_prior(images, out / "prior", preset="tiny", seed=seed, progress=progress)
        entries = _sets(images, prior, out, seed, progress)
        setting = Setting(STUDENT, protocol_named(PROTOCOL))
        comparison = Comparison(compare_entries(entries, test, [setting], folder=out / "trainings", progress=progress))
        comparison.write(out)
        with atomic_file(out / "contact-sheet.png") as temporary:
            shutil.copyfile(out / "distilled" / "contact-sheet.png", temporary)
        _write_page(out, images, test, comparison, seed)
    minutes = (time.monotonic() - started) / 60
    text = "\n".join(
        [
            comparison.as_text(),
            "",
            f"Done in {minutes:.1f} minutes. Open {out}/index.html.",
            f"The pictures are in {out}/distilled/train, the table in {out}/results.json.",
            "On your own folder (one folder of images per class):",
            NEXT_STEPS,
        ]
    )
    return text, {"out": str(out), **comparison.as_values()}


def _sets(images: ImageData, prior: Prior, out: Path, seed: int, progress: Progress) -> list[Entry]:
    """Invert once for each number of images per class; draw every set from the statistics, and the baselines with the same seeds."""
    entries = []
    place = functools.partial(_place, out)
    for ipc, settings in SETTINGS.items():
        shown = out / "distilled" if ipc == SHOWN else place("d3hr", ipc, seed)
        first = distill(images, prior, shown, ipc=ipc, seed=seed, progress=progress, **settings)
        guidance = PRIOR_ONLY_GUIDANCE[ipc]
        for draw in range(seed, seed + DISTILLATION_SEEDS):
            trainings = range(draw * TRAINING_SEEDS, (draw + 1) * TRAINING_SEEDS)
            distilled = first if draw == seed else expand(first, prior, place("d3hr", ipc, draw), ipc=ipc, seed=draw)
            real = random_real(images, place("random_real", ipc, draw), ipc=ipc, image_size=prior.image_size, seed=draw)
            drawn = prior_only(prior, images.class_names, place("prior_only", ipc, draw), ipc=ipc, guidance_scale=guidance, seed=draw)
            entries += [Entry(one, trainings) for one in (distilled, real, drawn)]
    return entries


def _place(out: Path, method: str, ipc: int, draw: int) -> Path:
    return out / "sets" / f"{method}-ipc{ipc}-seed{draw}"


def _write_page(out: Path, images: ImageData, test: ImageData, comparison: Comparison, seed: int) -> None:
    from d3hr.report.charts import accuracy_chart, loss_chart
    from d3hr.report.page import write_page

    rows = comparison.rows
    fit = read_json(out / "prior" / "fit.json")
    minutes = sum(fit["seconds"].values()) / 60
    settings = distill_settings(**SETTINGS[SHOWN])
    sheets = [
        (out / "distilled", f"Distilled, {SHOWN} per class: drawn from {settings.modes} Gaussians per class, near the clean latents"),
        (_place(out, "random_real", SHOWN, seed), f"Random real images, {SHOWN} per class"),
        (_place(out, "prior_only", SHOWN, seed), f"Prior only, {SHOWN} per class: random noise, denoised"),
    ]
    write_page(
        out / "index.html",
        "demo.html",
        data_name=f"{len(images):,} real handwritten digits (UCI, 8 × 8 pixels, scikit-learn)",
        real_count=f"{len(images):,}",
        classes=images.class_names,
        verdicts=comparison.summary(),
        sheets=[{"picture": (made / "contact-sheet.png").read_bytes(), "caption": caption} for made, caption in sheets],
        rows=rows,
        best={row.ipc: max(other.accuracy_mean for other in rows if other.ipc == row.ipc) for row in rows},
        names=NAMES,
        student=STUDENT,
        protocol=protocol_named(PROTOCOL),
        test_count=len(test),
        distillation_seeds=DISTILLATION_SEEDS,
        training_seeds=TRAINING_SEEDS,
        accuracy_chart=accuracy_chart(rows, legend=NAMES),
        loss_chart=loss_chart(out / "prior" / "loss.csv"),
        facts={
            "real images": f"{len(images):,} for training, {len(test)} for testing, {images.class_names[0]} to {images.class_names[-1]}",
            "prior": f"preset tiny, fitted in {minutes:.1f} minutes; reconstruction {fit['reconstruction_psnr_db']} dB PSNR",
            "inversion": f"{settings.statistics_level} of {settings.steps} DDIM steps, guidance {settings.inversion_guidance}",
            "groups": f"{settings.modes} Gaussians per class, strategy {settings.strategy} ({settings.exact_std} std), "
            f"temperature {settings.temperature:g}; at 1 image per class the mean of one Gaussian, the same for every seed",
            "denoising": f"from level {settings.denoising_level}, guidance {settings.denoising_guidance}",
            "prior only": f"the same prior, pure noise denoised from level {settings.steps - 1}; "
            + " and ".join(f"guidance {guidance:g} at {ipc} image(s) per class" for ipc, guidance in PRIOR_ONLY_GUIDANCE.items()),
            "made by": f"d3hr {version('d3hr')}",
        },
        next_steps=NEXT_STEPS,
    )
