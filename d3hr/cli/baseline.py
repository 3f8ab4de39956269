"""``d3hr baseline``: a set by any method, such as those that a distilled set must beat."""

from pathlib import Path
from typing import Any

from d3hr.cli.options import LOADING, READING, Loading, Reading
from d3hr.cli.output import Result, next_evaluation
from d3hr.distillation.settings import Network
from d3hr.progress import OnTerminal


def baseline(
    method: str,
    data: str,
    *,
    out: str,
    ipc: int = 10,
    settings: dict[str, Any] | None = None,
    prior: str | None = None,
    teacher: str | None = None,
    image_size: int | None = None,
    seed: int = 0,
    shared: str | None = None,
    split: str | None = None,
    loading: Loading = LOADING,
    reading: Reading = READING,
) -> Result:
    """Make a set by another method than d3hr's, to compare with, or by d3hr itself, through the interface that all methods share.

    Args:
        method: d3hr, chosen, mixed, real_start, random_real, herding, k_center, k_means, prior_only, forward_noise, latent_gaussian,
            prototypes or patches
        data: folder of class folders, archive, parquet or .npz file, Hub id, or digits
        out: folder to write the set to
        ipc: images per class
        settings: settings that differ from the method's defaults, such as '{space: latent}'; an unknown one is answered with the list
        prior: folder or Hub id of a diffusion prior, for methods that draw from one and for space latent
        teacher: folder of a teacher, for patches and for space teacher
        image_size: side of the images in pixels, by default the prior's, or without one the data's
        seed: seed of the random draws of the method
        shared: folder for what all sets of the same data share, such as class statistics, by default OUT-shared
        split: train, validation, test, ...; train by default
        loading: how the prior is loaded
        reading: how images are read
    """
    from d3hr.evaluation.teachers import Teacher
    from d3hr.fileio.staging import require_free_or_ours
    from d3hr.methods.job import MethodInputs
    from d3hr.methods.registry import method_named
    from d3hr.sets.packing import packed_in_words

    chosen, options = method_named(method), settings or {}
    flags: dict[Network, str | None] = {"prior": prior, "teacher": teacher}
    chosen.parse(options, [network for network, value in flags.items() if value])  # refuses wrong settings before anything is read
    require_free_or_ours(out)
    progress = OnTerminal()
    class_map = loading.classes()
    loaded = loading.load(prior, progress) if prior else None
    classifier = Teacher.load(teacher, device=loading.device) if teacher else None
    images = reading.load(data, split, progress)
    inputs = MethodInputs(images, image_size or (loaded.image_size if loaded else images.image_size), loaded, classifier, class_map)
    distilled = chosen.make(inputs, out, ipc=ipc, seed=seed, shared=shared or f"{out}-shared", progress=progress, **options)
    manifest = distilled.manifest
    packed = f", {packed_in_words(distilled.pack)}" if distilled.pack > 1 else ""
    text = (
        f"{ipc} image(s) of each of {len(distilled.class_names)} classes in {out}: {chosen.summary}{packed} "
        f"(look at {out}/contact-sheet.png).\n"
        f"{next_evaluation(out, images)}"
    )
    values = {"out": out, "method": manifest.method, "ipc": ipc, "classes": list(distilled.class_names), "settings": manifest.settings}
    return Result(text, values, Path(out))
