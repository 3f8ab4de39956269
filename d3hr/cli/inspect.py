"""``d3hr inspect``: what is in a data set."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from d3hr.cli.options import READING, Reading, warn_of_leak
from d3hr.cli.output import Result
from d3hr.errors import SettingsError
from d3hr.formatting import table
from d3hr.progress import OnTerminal


def inspect(
    data: str,
    *,
    prior: str | None = None,
    class_map: str | None = None,
    split: str | None = None,
    test: str | None = None,
    test_split: str | None = None,
    reading: Reading = READING,
) -> Result:
    """Read every image once and say what is there: classes, counts, sizes, files that cannot be read, what a prior makes of the classes.

    Args:
        data: folder of class folders, archive, parquet or .npz file, Hub id, or digits
        prior: folder or Hub id of a prior; shows which of its classes each class would be drawn as, without loading its weights
        class_map: YAML file of lines "class: class of the prior", for classes whose names do not match
        split: train, validation, test, ...; train by default
        test: images to test on; says how many of them are among the data
        test_split: split of the test images
        reading: how images are read
    """
    from d3hr.prior.class_matching import match_classes, read_class_map
    from d3hr.prior.families.registry import family_of
    from d3hr.prior.repository import Repository
    from d3hr.sets.manifest import read_manifest

    if class_map and not prior:
        raise SettingsError("--class-map is for --prior.", found="no --prior", hint="give the prior whose classes it names.")
    named = read_class_map(class_map) if class_map else None
    if test_split and not test:
        raise SettingsError(
            "--test-split is for --test.", found="no --test", hint="give the test images too, which may be the same source."
        )
    progress = OnTerminal()
    images = reading.load(data, split, progress)
    values: dict[str, Any] = {
        "source": images.source,
        "split": images.split,
        "splits": list(images.splits),
        "images": len(images),
        "classes": images.counts,
        "labels": {name: label for label, name in enumerate(images.class_names)},
        "similar_names": [list(group) for group in images.similar_names],
        "sizes": {f"{width}x{height}": count for (width, height), count in sorted(images.sizes.items())},
        "cropped": round(images.cropped, 4),
        "duplicates": len(images.contents.repeats),
        "conflicting_duplicates": len(images.contents.contradictions),
        "skipped": list(images.skipped),
        "notes": list(images.notes),
        "ignored": list(images.ignored),
        "fingerprint": images.fingerprint,
    }
    if (Path(data) / "manifest.json").is_file():
        manifest = read_manifest(Path(data))
        values["set"] = {"method": manifest.method, "ipc": manifest.ipc, "pack": manifest.pack, "real_images": manifest.real_images}
        progress.say(
            f"{data} is a distilled set, method {manifest.method}" + (manifest.about_real_images and f": it {manifest.about_real_images}")
        )
    if test:
        tested = reading.load(test, test_split, progress, test=True)
        warn_of_leak(images, tested, progress)
        values["overlap"] = images.overlap(tested)
    if prior is None:
        counts = [(f"{count:,}", str(label), name) for label, (name, count) in enumerate(images.counts.items())]
        return Result(table(("images", "label", "class"), counts, right=(0, 1)), values)
    repository = Repository(prior)
    labels = family_of(repository).labels_in(repository)
    matches = match_classes(images.class_names, labels, of=data, prior=prior, class_map=named)
    values["conditioning"] = [asdict(match) for match in matches]
    rows = [
        (f"{images.counts[match.class_name]:,}", match.class_name, str(match.conditioning_id), match.prior_class, match.how)
        for match in matches
    ]
    return Result(table(("images", "class", "id", f"class of {prior}", "matched by"), rows, right=(0, 2)), values)
