"""Compares choices of real images on a real data set; every set and training is kept, so a stopped run continues.

Matrix NAME is the file benchmarks/matrices/real-NAME.yaml. With `--teacher` the folder of a teacher (`d3hr train-teacher`, or `d3hr
import-teacher` for weights of others) is asked how sure it is of each image; with `--prior` images may be drawn, too. `--on validation`
tests on held-out training images, on which everything is chosen; a teacher may have seen these, as it only orders the images to choose
from.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import HERE, WORK, argument_parser, kept_rows, record
from benchmarks.quality.real_matrix import matrix_file
from benchmarks.quality.real_priors import prior_folder
from benchmarks.real_data import IMAGE_SIZE, NAMES, images_of, real_data
from d3hr import Prior
from d3hr.comparison.matrix import read_matrix
from d3hr.comparison.run import compare
from d3hr.comparison.tables import accuracy_table
from d3hr.evaluation.teachers import Teacher
from d3hr.methods.job import MethodInputs
from d3hr.progress import OnTerminal

PROTOCOLS = {"fashion_mnist": "short-fp32", "cifar10": "short-shifts-fp32", "tiny_imagenet10": "short-shifts-fp32"}
"""How students are trained on each data set, in float32; with soft labels the files end in -stored."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", choices=NAMES)
    parser.add_argument("matrix")
    parser.add_argument("--teacher", help="folder of a teacher")
    parser.add_argument("--soft", action="store_true", help="soft labels, of the teacher")
    parser.add_argument("--prior", type=int, metavar="STEPS", help="the prior of so many optimiser steps (benchmarks.quality.real_priors)")
    parser.add_argument("--on", choices=["validation", "test"], required=True, help="the images to test on")
    parser.add_argument("--ipc", type=int, nargs="*", help="images per class; by default the matrix's")
    parser.add_argument("--seeds", type=int, nargs="*", help="seeds of the sets; by default the matrix's")
    options = parser.parse_args(arguments)
    name, on = options.data, options.on
    images, test = images_of(real_data(name), "train", on)
    teacher = Teacher.load(options.teacher) if options.teacher else None
    protocol = HERE / "protocols" / f"{PROTOCOLS[name]}{'-stored' if options.soft else ''}.yaml"
    changes = {"ipc": options.ipc, "distillation_seeds": options.seeds, "protocols": [str(protocol)]}
    matrix = read_matrix(matrix_file(options.matrix), changes)
    prior = Prior.from_pretrained(prior_folder(name, options.prior)) if options.prior else None
    folder = WORK / "choices" / f"{name}-{on}{f'-{teacher.student}' if teacher else ''}{f'-{options.prior}' if prior else ''}"
    inputs = MethodInputs(images, IMAGE_SIZE, prior=prior, teacher=teacher)
    comparison = compare(matrix, inputs, test, folder, progress=OnTerminal())
    print(accuracy_table(comparison.rows))
    settings = {"matrix": matrix.model_dump(mode="json", exclude={"protocols"}), "protocol": protocol.name, "on": on}
    networks = {"teacher": {"student": teacher.student, "accuracy": teacher.about.get("accuracy")}} if teacher else {}
    networks |= {"prior_steps": options.prior} if prior else {}
    sizes = "" if options.ipc is None else "-ipc" + "-".join(map(str, options.ipc))
    labels = "-soft" if options.soft else ""
    record(f"{name}-{options.matrix}-{on}{labels}{sizes}", {**settings, **networks}, kept_rows(comparison.rows, "class_names"))


if __name__ == "__main__":
    main()
