"""``d3hr baseline``: a set of one of the methods that a distilled set must beat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3hr.commands.priors import Precision, load_prior
from d3hr.commands.reading import BadImage, Reading
from d3hr.commands.result import Result
from d3hr.progress import OnTerminal


def baseline(
    method: str,
    data: str,
    *,
    out: str,
    ipc: int = 10,
    seed: int = 0,
    prior: str | None = None,
    teacher: str | None = None,
    settings: dict[str, Any] | None = None,
    class_map: str | None = None,
    image_size: int | None = None,
    precision: Precision = "fp32",
    autoencoder: str | None = None,
    device: str | None = None,
    split: str | None = None,
    on_bad_image: BadImage = "error",
    image_column: str | None = None,
    label_column: str | None = None,
    data_config: str | None = None,
) -> Result:
    """Make a set by one of the methods that a distilled set must beat, of the same layout as a distilled one.

    Args:
        method: random_real, herding, k_center, k_means, prior_only, forward_noise, latent_gaussian, prototypes or patches; d3hr too
        data: folder of class folders, folder of parquet files, Hub id, or digits
        out: folder to write the set to; what further sets of the same data can use again is kept in OUT-shared
        ipc: images per class
        seed: seed of the draws
        prior: folder or Hub id of the diffusion prior, for methods that draw from one or measure in its latents
        teacher: folder of a teacher, for patches and for choices by its features
        settings: settings of the method, such as {space: latent} or {preset: gentle}
        class_map: YAML file of lines "class: class of the prior", for classes whose names do not match
        image_size: side in pixels of the set, by default the prior's, or the images' own
        precision: arithmetic of the prior's networks
        autoencoder: folder or Hub id of an autoencoder to use instead of the prior's own
        device: where the prior runs: cpu, cuda, mps; by default the fastest there is
        split: train, validation, test, ...; train by default
        on_bad_image: stop at unreadable images, or leave them out and count them
        image_column: column of images of a parquet or Hub source
        label_column: column of classes of a parquet or Hub source
        data_config: configuration of a Hub source that has several, such as full_size
    """
    from d3hr.baselines.materials import Materials
    from d3hr.baselines.methods import Job, method_named
    from d3hr.evaluation.teachers import Teacher
    from d3hr.prior.conditioning import read_class_map

    chosen, options, progress = method_named(method), settings or {}, OnTerminal()
    loaded = load_prior(prior, progress=progress, precision=precision, autoencoder=autoencoder, device=device) if prior else None
    images = Reading(on_bad_image, image_column, label_column, progress, data_config).load(data, split)
    materials = Materials(
        images,
        image_size or (loaded.image_size if loaded else images.image_size),
        prior=loaded,
        teacher=Teacher.load(teacher) if teacher else None,
        class_map=read_class_map(class_map) if class_map else None,
    )
    chosen.check(method, materials, options)
    made = chosen.run(Job(materials, Path(out), ipc, seed, Path(out).with_name(Path(out).name + "-shared"), progress), **options)
    text = f"{ipc} image(s) of each of {len(made.class_names)} classes in {out}: {chosen.summary}."
    return Result(text, {"out": out, "method": method, "ipc": ipc, "classes": list(made.class_names)}, Path(out))
