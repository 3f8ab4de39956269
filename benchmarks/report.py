"""Writes docs/results.md, its plots and the README's table from the files in benchmarks/results; no number in them is typed.

Run:   make benchmarks-report
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import DOCS, RESULTS
from benchmarks.page import Line, Page, accuracy, files_of, marked, rows_of
from d3hr.fileio.atomic import read_json, write_bytes

DATA = {"fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "tiny_imagenet10": "Tiny ImageNet"}

PAIRS = [
    ("inversion against forward noise (both `exact`)", "d3hr exact", "forward_noise"),
    ("inversion against the prior alone", "d3hr exact", "prior_only"),
    ("search against one draw", "d3hr search", "d3hr random"),
    ("exact against search", "d3hr exact", "d3hr search"),
    ("best of ours against published D3HR", "d3hr chosen", "d3hr published"),
    ("best of ours against one Gaussian (`exact`)", "d3hr chosen", "d3hr exact"),
    ("best of ours against the prior alone", "d3hr chosen", "prior_only"),
    ("best of ours against forward noise", "d3hr chosen", "forward_noise"),
    ("best of ours against k-means medoids", "d3hr chosen", "k_means"),
    ("best of ours against random real images", "d3hr chosen", "random_real"),
    ("published D3HR against random real images", "d3hr published", "random_real"),
]
"""The questions of the main matrix: question, row, row that it is compared with."""

FIRST = {
    "groups of the easiest": "`d3hr`, chosen real images",
    "d3hr chosen": "`d3hr`, drawn images, settings chosen on held-out images",
    "d3hr published": "`d3hr`, drawn images, the paper's settings",
    "random_real": "real images: random",
    "k_means": "real images: k-means medoids",
    "herding": "real images: herding",
    "prior_only": "prior alone, no inversion",
}
"""Rows of the README's table."""
README, START, END = DOCS.parent / "README.md", "<!-- written by make benchmarks-report -->", "<!-- end -->"

BY_SIDE = [("as they are", "pretrained_by_side"), ("enlarged", "pretrained_by_side_enlarged")]
"""Rows on a pretrained autoencoder, and their names in its result."""
OVERLAP = ("precision", "recall", "coverage")
"""Figures of how drawn images overlap with real ones."""
Study = tuple[str, str, str]
CHOSEN: list[Study] = [
    ("without any teacher or prior", "choices", "test"),
    ("by a teacher of all the training images", "choices-teacher", "test"),
    ("for soft labels, by the teacher that answers", "choices-teacher", "test-soft"),
    ("next to a prior", "starts", "test"),
]
"""How real images are chosen: heading, matrix, images it was tested on."""
CHOICES: list[Study] = [
    ("How many modes, at which level, drawn how", "modes", "validation"),
    ("Solver and steps", "solver", "validation"),
    ("Guidance in denoising from modes", "guided-modes", "validation"),
    ("One image per class", "one-image", "validation"),
    ("Fifty images per class", "many-images", "validation"),
    ("Nearer to the means of the modes", "temperature", "validation"),
    ("Gaussians that keep directions of their covariance", "rank", "validation"),
]
ABLATIONS: list[Study] = [
    ("Inversion and grouping: neither, either, both", "inversion-x-grouping", "test"),
    ("Candidates of the search, and what replaces it", "candidates", "test"),
    ("Guidance, in inversion and in denoising", "guidance", "validation"),
    ("How many real images the statistics come from", "images", "validation"),
]
"""Heading, matrix, images it was tested on."""


def measured(matrix: str, on: str) -> Iterator[tuple[str, str, list[Path]]]:
    """Yield name, title and result files of each data set for which there are files of a matrix."""
    for data, title in DATA.items():
        if files := files_of(data, matrix, on):
            yield data, title, files


def studies(chosen: list[Study]) -> Callable[[Page], None]:
    """Return a function that appends a table for each of these matrices and each data set."""

    def write(page: Page) -> None:
        for heading, matrix, on in chosen:
            for _, title, files in measured(matrix, on):
                page.add(f"### {title}: {heading[0].lower()}{heading[1:]}")
                page.accuracies(rows_of(files))
                page.sources(files)

    return write


def priors(page: Page) -> None:
    """Append the fitted priors."""
    files = [file for data in DATA if (file := RESULTS / f"real_priors_{data}.json").is_file()]
    table = []
    for file in files:
        figures = read_json(file)["figures"]
        behind = f"{figures['autoencoder']['minutes']} min, {figures['autoencoder']['psnr_db']} dB"
        name = DATA[file.stem.removeprefix("real_priors_")]
        table += [
            [name, behind, f"{int(steps):,}", str(each["minutes"]), str(each["loss"])] for steps, each in figures["transformers"].items()
        ]
    page.table(["data", "autoencoder", "transformer steps", "minutes (one thread)", "noise loss at the end"], table)
    page.sources(files)
    for data, title, (file,) in measured("fitting", "validation"):
        _fitting(page, data, title, file)


def _fitting(page: Page, data: str, title: str, file: Path) -> None:
    lines: dict[str, Line] = {}
    for fit in read_json(file)["figures"].values():
        for row in fit["rows"]:
            lines.setdefault(row["name"], []).append((fit["minutes"], row))
    page.prose("How long fitting pays, on held-out images:")
    page.plot(f"results-fitting-{data}", f"{title}, 10 images per class", "minutes that the transformer was fitted", lines)
    page.sources([file])


def autoencoders(page: Page) -> None:
    """Append what a pretrained autoencoder brings."""
    for _, title, (file,) in measured("autoencoders", "validation"):
        figures = read_json(file)["figures"]
        found = figures["reconstruction_psnr_db"]
        page.add(f"### {title}, {read_json(file)['settings']['image_size']} px")
        page.table(
            ["autoencoder", "photos", "the same, enlarged to 128 px"],
            ([name, f"{each} dB", f"{found['enlarged_to_128_px'][name]} dB"] for name, each in found["at_64_px"].items()),
        )
        page.prose("The pretrained one on the same photos, read at other sides, and enlarged to twice that side before it sees them:")
        sides = found["pretrained_by_side"]
        page.table(
            ["pixels", *sides],
            [[label, *(f"{found[key][side]} dB" for side in sides)] for label, key in BY_SIDE],
        )
        page.add("![Photos, and what either autoencoder makes of them](images/autoencoders.png)")
        page.prose(BY_EYE)
        if "rows" in figures:
            page.prose(STUDENTS)
            page.accuracies(figures["rows"])
        page.sources([file])


def families(page: Page) -> None:
    """Append what sets from priors of other families are worth."""
    if not (file := RESULTS / "families.json").is_file():
        return
    rows = [{**row, "name": row["family"]} for row in read_json(file)["figures"]]
    page.accuracies(rows, by="sets")
    fitted = {row["name"]: row for row in rows if "steps" in row}
    page.table(
        ["prior", "parameters", "training steps in the same time", "loss at the end"],
        ([f"`{name}`", f"{row['parameters']:,}", f"{row['steps']:,}", f"{row['loss']:.3f}"] for name, row in fitted.items()),
    )
    page.sources([file])


def objectives(page: Page) -> None:
    """Append what new priors learn, by how long they are fitted."""
    for data, title, (file,) in measured("objectives", "validation"):
        result = read_json(file)
        settings, figures = result["settings"], result["figures"]
        fits = sorted(figures["priors"], key=lambda fit: (fit["steps"], fit["seed"]))
        page.add(f"### {title}: what a new prior learns")
        lines: dict[str, Line] = {}
        for fit in fits:
            for row in fit["rows"]:
                lines.setdefault(f"{fit['objective']}, {row['name']}", []).append((fit["steps"], row))
        if len({fit["steps"] for fit in fits}) > 1:
            page.plot(f"results-objectives-{data}", f"{title}, 10 images per class", "optimiser steps of the transformer", lines)
        page.table(
            ["objective", "steps", *(f"`{row['name']}`, accuracy %" for row in fits[0]["rows"]), "round trip, dB", *OVERLAP, "Frechet"],
            [
                *(
                    [
                        f"`{fit['objective']}`",
                        f"{fit['steps']:,}",
                        *(accuracy(row) for row in fit["rows"]),
                        f"{fit['round_trip_db']:.1f}",
                        *(f"{fit['drawn'][name]:.2f}" for name in OVERLAP),
                        f"{fit['drawn']['frechet']:.2f}",
                    ]
                    for fit in fits
                ),
                [
                    "other real images",
                    *("" for _ in ("steps", *fits[0]["rows"])),
                    f"{fits[0]['autoencoder_db']:.1f}",
                    *(f"{figures['real'][name]:.2f}" for name in OVERLAP),
                    f"{figures['real']['frechet']:.2f}",
                ],
            ],
        )
        about = settings["teacher"]
        page.prose(f"The teacher has {100 * about:.1f} % on the held-out images; the last round trip is that of the autoencoder alone.")
        page.sources([file])


def main_matrices(page: Page) -> None:
    """Append the matrices on the test images, and the paired differences."""
    for data, title, files in measured("main", "test"):
        rows = rows_of(files)
        page.add(f"## {title}")
        page.accuracies(rows)
        page.differences(rows, PAIRS)
        _classes(page, rows)
        _diagnosis(page, data)
        if (DOCS / "images" / f"{data}-sets.png").is_file():
            page.add(f"![The first sets, ten images per class](images/{data}-sets.png)")
        page.sources(files)


def _classes(page: Page, rows: list[dict[str, Any]]) -> None:
    named = {row["name"]: row["per_class"] for row in rows if row["ipc"] == 10}
    shown = [name for name in ("random_real", "d3hr published", "d3hr exact", "d3hr chosen") if name in named]
    if not shown:
        return
    page.prose("Which classes, at 10 images per class:")
    page.table(
        ["class", *(f"`{name}`" for name in shown)],
        ([each, *(f"{100 * named[name][each]:.1f}" for name in shown)] for each in named[shown[0]]),
    )


def _diagnosis(page: Page, data: str) -> None:
    if not (file := RESULTS / f"{data}-diagnosis.json").is_file():
        return
    page.prose("What `d3hr diagnose` finds in the first sets of 10 images per class, as shares of what random real images have:")
    page.table(
        ["set", "mean distance within a class", "coverage", "sliced Wasserstein", "Frechet", "copies"],
        (
            [
                f"`{name}`",
                f"{diagnosis['diversity']['distilled'] / diagnosis['diversity']['real']:.2f}",
                f"{diagnosis['coverage']['coverage'] / diagnosis['coverage']['reference']['coverage']:.2f}",
                *(
                    f"{diagnosis['distances'][measure]['distilled'] / diagnosis['distances'][measure]['reference_mean']:.2f}"
                    for measure in ("sliced_wasserstein", "frechet")
                ),
                _percent(diagnosis["copying"]["share_copied"]),
            ]
            for name, diagnosis in read_json(file)["figures"].items()
        ),
    )
    page.sources([file])


def chosen(page: Page) -> None:
    """Append the tables of chosen real images, each with its differences to random real images; packed sets have tables of their own."""
    for heading, matrix, on in CHOSEN:
        for _, title, files in measured(matrix, on):
            page.add(f"### {title}: {heading}")
            rows = rows_of(files)
            for packed in (False, True):
                part = [row for row in rows if (row["pack"] > 1) == packed]
                real = [row["name"] for row in part if row["method"] == "random_real"]
                if part:
                    page.accuracies(part)
                    names = [name for name in dict.fromkeys(row["name"] for row in part) if name not in real]
                    page.differences(part, [(f"`{name}` against `{real[0]}`", name, real[0]) for name in names if real])
            page.sources(files)


def protocols(page: Page) -> None:
    """Append how the protocol was chosen."""
    for _, title, files in measured("protocol", "validation"):
        page.add(f"### {title}: the protocol, on random real images alone")
        page.accuracies([{**row, "name": row["protocol"]} for row in rows_of(files)])
        page.sources(files)


def levels(page: Page) -> None:
    """Append accuracy by level, for one mode and several."""
    for data, title, files in measured("level", "validation"):
        rows = rows_of(files)
        page.add(f"### {title}: the level")
        if read_json(files[0])["date"] < read_json(RESULTS / f"real_priors_{data}.json")["date"]:
            page.prose("With an earlier fit of the same prior, and students trained in float32.")
        lines: dict[str, Line] = {}
        for row in rows:
            if match := re.fullmatch(r"(.+), level (\d+)", row["name"]):
                lines.setdefault(match[1], []).append((int(match[2]), row))
        page.plot(f"results-level-{data}", f"{title}, 10 images per class", "level of statistics and denoising", lines)
        page.accuracies(rows)
        page.sources(files)


def robustness(page: Page) -> None:
    """Append how far accuracies of many sets scatter."""
    for _, title, files in measured("robustness", "test"):
        rows = rows_of(files)
        real = next(row for row in rows if row["name"] == "random_real")["accuracy_std"]
        page.add(f"### {title}: {rows[0]['seeds']} sets")
        page.table(
            ["method", "accuracy %", "spread, of random real images'"],
            ([f"`{row['name']}`", accuracy(row), f"{row['accuracy_std'] / real:.2f}"] for row in rows),
        )
        page.differences(rows, PAIRS)
        page.sources(files)


def with_teacher(heading: str, matrix: str) -> Callable[[Page], None]:
    """Return a function that appends the tables of a matrix whose students have a teacher."""

    def write(page: Page) -> None:
        for data, title, files in measured(matrix, "test"):
            teacher = RESULTS / f"real_teachers_{data}.json"
            rows, accuracy_of_teacher = rows_of(files), read_json(teacher)["figures"]["test_accuracy"]
            page.add(f"### {title}: {heading}")
            page.prose(f"The teacher is a ConvNet-3 with {100 * accuracy_of_teacher:.1f} % on the test images.")
            page.accuracies(rows)
            page.differences(rows, PAIRS)
            page.sources([teacher, *files])

    return write


def students(page: Page) -> None:
    """Append the accuracy of other networks on the same sets."""
    for _, title, files in measured("students", "test"):
        page.add(f"### {title}: one set, five networks")
        page.accuracies(rows_of(files), by="student")
        page.sources(files)


def spoiled(page: Page) -> None:
    """Append the accuracy on spoiled images, and their diagnosis."""
    for _, title, (file,) in measured("spoiled", "validation"):
        figures: dict[str, Any] = read_json(file)["figures"]
        page.add(f"### {title}: spoiled training images")
        page.accuracies([{**row, "how": how} for how, each in figures.items() for row in each["rows"]], by="how")
        signatures = list(next(iter(next(iter(figures.values()))["diagnoses"].values()))["verdicts"])
        page.prose("What the diagnosis of the first set of `d3hr chosen` says before anything is trained:")
        page.table(
            ["training images", *signatures, "in clear neighbourhoods, other labels", "diversity, of real"],
            (
                [
                    how,
                    *(diagnosis["verdicts"][signature]["status"] for signature in signatures),
                    _percent(diagnosis["labels"]["contradicted"]),
                    f"{diagnosis['diversity']['distilled'] / diagnosis['diversity']['real']:.2f}",
                ]
                for how, each in figures.items()
                for diagnosis in [each["diagnoses"]["d3hr chosen"]]
            ),
        )
        page.sources([file])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def costs(page: Page) -> None:
    """Append time and memory of distillations, next to what was planned."""
    for data, title in DATA.items():
        if (file := RESULTS / f"{data}-cost.json").is_file():
            page.add(f"### {title}: time and memory, preset `gentle`, one thread")
            page.table(
                ["images", "seconds", "planned", "peak MiB", "planned", "checking", "encode, invert", "drawing", "share of inversion"],
                (
                    [
                        f"{int(count):,}",
                        f"{each['made']['seconds']:.0f}",
                        f"{each['planned']['seconds']:.0f}",
                        f"{each['made']['peak_mib']:,}",
                        f"{each['planned']['peak_mib']:,}",
                        *(
                            f"{sum(seconds for title, seconds in each['made']['stages'].items() if title.startswith(stage)):.0f} s"
                            for stage in ("checking", "inverting", "drawing")
                        ),
                        _percent(each["share_of_inversion"]),
                    ]
                    for count, each in read_json(file)["figures"].items()
                ),
            )
            page.sources([file])


def storage(page: Page) -> None:
    """Append bytes and accuracy by the number of images per class."""
    for data, title in DATA.items():
        file, files = RESULTS / f"{data}-storage.json", files_of(data, "sizes", "validation")
        if not file.is_file() or not files:
            continue
        rows = {(row["name"], row["ipc"]): row for row in rows_of(files)}
        page.add(f"### {title}: bytes and accuracy")
        page.table(
            ["method", "IPC", "images", "statistics", "prior (for `expand`)", "accuracy %", "points per 10 KB of images"],
            (
                [
                    f"`{name}`",
                    ipc,
                    *(f"{bytes_of[part]:,}" for part in ("images", "statistics", "prior")),
                    accuracy(row),
                    f"{100 * row['accuracy_mean'] / (bytes_of['images'] / 10_000):.2f}",
                ]
                for name, sizes in read_json(file)["figures"].items()
                for ipc, bytes_of in sizes.items()
                if (row := rows.get((name, int(ipc))))
            ),
        )
        page.sources([file, *files])


INTRODUCTION = """\
Written by `make benchmarks-report` from [benchmarks/results](../benchmarks/results); every number traces to a file there, which holds
command, commit, settings, machine and date ([which script wrote which file](../benchmarks/README.md)).

Mean ± standard deviation over runs (sets × trainings), last training step, ConvNet-3, hard labels unless it says otherwise, 10,000 test
images. Protocols: [short](../benchmarks/protocols/short.yaml) for Fashion-MNIST,
[short-shifts](../benchmarks/protocols/short-shifts.yaml) for CIFAR-10 and for ten classes of Tiny ImageNet at 32 pixels (4,500 photos to
train on, 500 to test), where nothing was chosen: protocol and settings are those of the others. Statistics come from 1,000 images per
class at most, the same for all sets of a row (d3hr now draws others for each seed), so that no spread includes their choice.

Everything was chosen on 2,000 images of the training sets that nothing else saw. Intervals treat sets, not trainings, as independent: over
two or three sets they are wide, and a narrow one may be so by chance. Two CPU cores; no GPU was available. What the numbers mean is
discussed in [experiments](experiments.md)."""
CHOSEN_BY = (
    "`d3hr distill --candidates real` and other choices, at equal steps, in float32 "
    "([short-shifts-fp32](../benchmarks/protocols/short-shifts-fp32.yaml)). What is easy say, without a teacher, networks trained on "
    "half of the training images of the other half. `groups of the easiest` was the choice on held-out images; the other rows are "
    "there to compare with. Packed sets have four images at half the side in each stored one, and are compared with each other alone."
)
PRETRAINED = (
    "A fitted autoencoder (`compact`, 800 steps: some seven minutes of one core) next to TAEF2, the tiny autoencoder of the FLUX.2 "
    "latents. TAEF2 has 32 channels at an eighth of the side; `madebyollin/taesd`, which `--autoencoder auto` takes and which could not "
    "be had here, has 4 and must be expected to do worse. PSNR on 100 held-out photos. There are no larger photos at hand: those at 128 "
    "px are the same, enlarged, and averaged down again afterwards; they say nothing of real detail at that side."
)
BY_EYE = (
    "In the picture the fitted one blurs every photo: fur, feathers, the cat's face and the lettering of the bus are gone, and shapes "
    "and colours stay. What the pretrained one gives back is nearly as sharp as the photo, with fine detail that is plausible and not "
    "quite the same. Their PSNR differs little, as PSNR prefers a blur to detail in the wrong place: it understates the pretrained one."
)
STUDENTS = (
    "Ten images per class, students of 32 px, tested on held-out photos. `photos through` an autoencoder are encoded and decoded, and "
    "nothing else. The other sets have behind them a transformer of 400 steps, some two quiet minutes."
)
FAMILIES = (
    "Digits of 8 x 8 pixels, ten per class, three sets each, the test split. Small networks of each family were trained by one loop for "
    "four minutes of CPU time: `dit` predicts noise and `flow` velocity, with one network, `text` is a Stable Diffusion whose prompt is "
    "`a photo of the digit {name}`, all three in the latents of one autoencoder; `pixels` diffuses pixels and knows no classes, "
    "`pixels-classes` has a label table. Levels are those of the same ratio of noise to signal. Pixel models draw without the clipping of "
    "their own samplers, which no inversion undoes: from pure noise some of the images of `pixels-classes` stay noise."
)
PAPER = (
    "[paper-cifar-bf16](../benchmarks/protocols/paper-cifar-bf16.yaml). The paper has 41.3 % at 10 images per class and 70.8 % at 50: the "
    "best test accuracy of the last epochs, with a ResNet-18 of 93.9 % as its teacher."
)
DROPPED = "The second-order solver and stratified draws were measured and dropped; d3hr no longer has them."
SECTIONS: list[tuple[str, str, Callable[[Page], None]]] = [
    (
        "## The priors",
        "Every number below depends on these. The autoencoder's error is that of encoding and decoding training images.",
        priors,
    ),
    ("## A pretrained autoencoder", PRETRAINED, autoencoders),
    ("## Priors of other families", FAMILIES, families),
    (
        "## What a new prior learns",
        "`d3hr fit --objective`: the same transformer (preset `tiny`) behind the same autoencoder, at 16 pixels, on 1,000 images of each "
        "class; a step of 64 images costs the same whatever is learned, so equal steps are equal minutes. Sets of ten images per class, "
        "without guidance but for `mixture`, at levels of the same σ / α. Drawn images are compared with held-out ones in the features of "
        "a ConvNet-3. Held-out training images throughout; one fit, one set and one training each, so that accuracies a point or two apart "
        "are alike.",
        objectives,
    ),
    ("", "", main_matrices),
    ("## Chosen real images", CHOSEN_BY, chosen),
    ("## What was chosen, on held-out training images", f"No test image was looked at for these. {DROPPED}", protocols),
    ("", "", levels),
    ("", "", studies(CHOICES)),
    ("## Ablations", f"Ten images per class. {DROPPED}", studies(ABLATIONS)),
    ("## Robustness", "Sets of ten images per class, one training each.", robustness),
    (
        "## Soft labels",
        "The stored answers of a teacher in place of labels, ten images per class.",
        with_teacher("soft labels", "soft-labels"),
    ),
    ("## The paper's protocol", PAPER, with_teacher("ResNet-18, labels of a teacher for every batch", "paper")),
    ("## Other networks", "Distilled once, trained on by others.", students),
    ("## Spoiled images", "The prior is that of the images as they are; tests are on clean held-out images.", spoiled),
    ("## Cost", "Planned in one fresh process, carried out in another.", costs),
    ("## Storage", "Hard labels are folder names and need no bytes.", storage),
]


def first_table() -> str:
    """Return the README's table: the main matrices of all data sets side by side; the best of a column is bold."""
    rows = [
        {**row, "column": f"{title}, {row['ipc']} per class"}
        for matrix in ("main", "choices")
        for _, title, files in measured(matrix, "test")
        for row in rows_of(files)
        if row["name"] in FIRST and (matrix == "main" or row["method"] == "chosen")
    ]
    columns, cells = dict.fromkeys(row["column"] for row in rows), marked(rows, "column")
    page = Page()
    page.table(
        ["ConvNet-3, hard labels, test accuracy %", *columns],
        ([called, *(cells.get((name, column), "") for column in columns)] for name, called in FIRST.items()),
    )
    return page.text


def main() -> None:
    before, rest = README.read_text().split(START)
    write_bytes(README, f"{before}{START}\n{first_table()}{END}{rest.split(END)[1]}".encode())
    page = Page()
    page.add("# Results on real data")
    for paragraph in INTRODUCTION.split("\n\n"):
        page.prose(paragraph)
    for heading, intro, write in SECTIONS:
        part = Page()
        write(part)
        if part.lines:
            if heading:
                page.add(heading)
                page.prose(intro)
            page.lines += part.lines
    write_bytes(DOCS / "results.md", page.text.encode())


if __name__ == "__main__":
    main()
