"""``d3hr evaluate``: what a distilled set is worth, beside what it must beat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from d3hr.commands.priors import prior_of_set
from d3hr.commands.reading import BadImage, Reading, or_else
from d3hr.commands.result import Result
from d3hr.progress import OnTerminal


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
    image_size: int | None = None,
    out: str | None = None,
    on_bad_image: BadImage = "error",
    image_column: str | None = None,
    label_column: str | None = None,
    data_config: str | None = None,
) -> Result:
    """Train a student on a distilled set and test it, beside random real images and images drawn from the prior.

    Args:
        distilled: a distilled set
        test: the real images to test on
        test_split: split of the test images
        data: the real images to draw the random baseline from, by default those the set was made from
        split: split of those images
        prior: the prior to draw the other baseline from, by default the one the set was made with
        student: network to train, resnet18 or convnet3
        protocol: hard (1,000 steps), quick (200 steps) or paper-hard (the paper's, 1,000 to 2,000 epochs)
        seeds: training seeds; each baseline is drawn anew for each
        image_size: side in pixels that students see, in training and in testing, by default the set's own
        out: folder for baselines and results, by default DISTILLED-evaluation
        on_bad_image: stop at unreadable images, or leave them out and count them
        image_column: column of images of a parquet or Hub source
        label_column: column of classes of a parquet or Hub source
        data_config: configuration of a Hub source that has several, such as full_size
    """
    from d3hr.comparison.comparison import compare_with_baselines, verdicts
    from d3hr.evaluation.protocols import protocol_named, require_protocol
    from d3hr.evaluation.tables import accuracy_table
    from d3hr.storage import DistilledSet

    require_protocol(protocol)
    progress = OnTerminal()
    subject = DistilledSet.load(distilled)
    subject.require_images()
    manifest = subject.manifest
    chosen = protocol_named(protocol, ipc=manifest.ipc)
    reading = Reading(on_bad_image, image_column, label_column, progress, data_config)
    source = data or manifest.data.get("source")
    where = prior or manifest.prior.get("source")
    folder = Path(out) if out else subject.path.with_name(subject.path.name + "-evaluation")
    real_split = split or (manifest.data.get("split") if data is None else None)
    with or_else("--data", "The random-real row needs the images that the set was made from."):
        real = reading.load(source, real_split) if source else None
    with or_else("--prior", "The prior-only row needs the prior that the set was made with."):
        loaded = prior_of_set(manifest, where, progress=progress) if where else None
    rows = compare_with_baselines(
        subject,
        reading.load(test, test_split),
        folder,
        real=real,
        prior=loaded,
        student=student,
        protocol=chosen,
        seeds=seeds,
        image_size=image_size,
        progress=progress,
    )
    text = "\n".join([accuracy_table(rows), *verdicts(rows), f"Kept in {folder}/results.json."])
    return Result(text, {"out": str(folder), "results": [row.as_row() for row in rows], "verdicts": verdicts(rows)}, folder)
