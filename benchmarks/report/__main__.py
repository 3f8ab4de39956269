"""Writes docs/results.md, its plots and the README's table from the files in benchmarks/results; no number in them is typed.

Run:   make benchmarks-report
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.harness import DOCS
from benchmarks.report.costs import costs, storage
from benchmarks.report.matrices import (
    Study,
    chosen,
    levels,
    main_matrices,
    predictors,
    protocols,
    robustness,
    spoiled,
    students,
    studies,
    with_teacher,
)
from benchmarks.report.page import Page, marked, measured, rows_of
from benchmarks.report.priors import autoencoders, families, objectives, priors
from d3hr.fileio.atomic import write_bytes

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
PREDICTORS = (
    "Spearman's rank correlation of a property of a set, measured per class before anything is trained, with the accuracy of "
    "students, over sets of one size and kind of labels; the 95 % intervals come from drawing rows anew. Precision, recall, density, "
    "coverage and the Frechet distance compare a class with held-out images in a teacher's features, diversity is the mean distance "
    "of two images, separation how much farther the nearest other class's centre is than the own, confidence and entropy are of the "
    "teacher's answers. All of these sets are chosen real images. The rules that were compared differ in how easy the images are that "
    "they take, and so does every property: what goes with accuracy here is not shown to cause it."
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
        "a ConvNet-3. Held-out training images throughout; means over fits of two seeds, with one set and one training each, so that "
        "accuracies a point or two apart are alike.",
        objectives,
    ),
    ("", "", main_matrices),
    ("## Chosen real images", CHOSEN_BY, chosen),
    ("## What was chosen, on held-out training images", f"No test image was looked at for these. {DROPPED}", protocols),
    ("", "", levels),
    ("", "", studies(CHOICES)),
    ("## Ablations", f"Ten images per class. {DROPPED}", studies(ABLATIONS)),
    ("## What goes with accuracy", PREDICTORS, predictors),
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
