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
    prompt: str | None = None,
    split: str | None = None,
    test: str | None = None,
    test_split: str | None = None,
    verify: bool = False,
    reading: Reading = READING,
) -> Result:
    """Say what is there: classes, counts, sizes, files that cannot be read, duplicates, what a prior makes of the classes.

    Every image is decoded, unless over 10,000 are not known from an earlier look: then only headers are read.

    Args:
        data: folder of class folders, archive, parquet or .npz file, Hub id, or digits
        prior: folder or Hub id of a prior; shows the class of its, or the prompt, that each class is drawn by, without loading weights
        class_map: YAML file of lines "class: class of the prior", for classes whose names do not match; or "class: prompt"
        prompt: prompt of each class, {name} its name, for text-to-image priors; by default 'a photo of a {name}'
        split: train, validation, test, ...; train by default
        test: images to test on; says how many of them are among the data
        test_split: split of the test images
        verify: decode every image, however many there are, and so find damaged ones and duplicates
        reading: how images are read
    """
    from d3hr.planning.known_shapes import known_shape
    from d3hr.prior.class_matching import read_class_map
    from d3hr.prior.families.registry import family_of
    from d3hr.prior.repository import Repository, Variant
    from d3hr.sets.manifest import read_manifest

    if (class_map or prompt) and not prior:
        flag = "--class-map" if class_map else "--prompt"
        raise SettingsError(f"{flag} is for --prior.", found="no --prior", hint="give the prior that is to draw the classes.")
    named = read_class_map(class_map) if class_map else None
    if test_split and not test:
        raise SettingsError(
            "--test-split is for --test.", found="no --test", hint="give the test images too, which may be the same source."
        )
    progress = OnTerminal()
    decode = True if verify or test else None
    images = reading.load(data, split, progress, verify=decode)
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
        "verified": images.contents.known,
        "duplicates": len(images.contents.repeats) if images.contents.known else None,
        "conflicting_duplicates": len(images.contents.contradictions) if images.contents.known else None,
        "skipped": list(images.skipped),
        "notes": list(images.notes),
        "ignored": list(images.ignored),
        "fingerprint": images.fingerprint if images.contents.known else None,
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
    shape = known_shape(prior)
    repository = shape.repository if shape else Repository(prior)
    variant = Variant(prompt=prompt)
    matches = family_of(repository).match_in(repository, variant, images.class_names, of=data, class_map=named)
    values["conditioning"] = [asdict(match) for match in matches]
    rows = [
        (f"{images.counts[match.class_name]:,}", match.class_name, _shown(match.conditioning_id), match.prior_class, match.how)
        for match in matches
    ]
    given = "prompt" if all(match.how == "prompt" for match in matches) else f"class of {prior}"
    return Result(table(("images", "class", "id", given, "matched by"), rows, right=(0, 2)), values)


def _shown(conditioning_id: int | None) -> str:
    return "-" if conditioning_id is None else str(conditioning_id)
