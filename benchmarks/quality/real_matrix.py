"""Runs a matrix of methods on a real data set; every set and training is kept, so a stopped run continues.

Matrix NAME is the file benchmarks/matrices/real-NAME.yaml; `--on validation` tests on held-out training images, on which everything is
chosen. Rows are recorded after each number of images per class. A matrix that names no protocols has that of its data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import HERE, WORK, argument_parser, kept_rows, record
from benchmarks.quality.real_priors import add_prior_arguments, prior_folder
from benchmarks.quality.real_teachers import teacher_folder
from benchmarks.real_data import IMAGE_SIZE, images_of, real_data
from d3hr import Prior
from d3hr.comparison.matrix import read_matrix
from d3hr.comparison.run import compare
from d3hr.comparison.tables import accuracy_table
from d3hr.evaluation.teachers import Teacher
from d3hr.methods.job import MethodInputs
from d3hr.progress import OnTerminal

PROTOCOLS = {"fashion_mnist": "short", "cifar10": "short-shifts", "tiny_imagenet10": "short-shifts"}
"""How students are trained on each data set; with soft labels the files end in -stored."""
COMMON = {"preset": "gentle", "max_images_per_class": 1000}
"""Settings of every row that does not say otherwise; statistics come from a thousand images of each class."""


def matrix_file(name: str) -> Path:
    """Return the file of a matrix; the prefix keeps its name apart from those of :func:`d3hr.comparison.matrix.matrix_names`."""
    return HERE / "matrices" / f"real-{name}.yaml"


def protocol_of(name: str, *, soft: bool = False) -> Path:
    """Return the file of a data set's protocol."""
    return HERE / "protocols" / f"{PROTOCOLS[name]}{'-stored' if soft else ''}.yaml"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    add_prior_arguments(parser)
    parser.add_argument("matrix")
    parser.add_argument("--on", choices=["validation", "test"], required=True, help="the images to test on")
    parser.add_argument("--ipc", type=int, nargs="*", help="images per class; by default the matrix's")
    parser.add_argument("--seeds", type=int, nargs="*", help="seeds of the sets; by default the matrix's")
    parser.add_argument("--soft", action="store_true", help="soft labels, of the teacher that benchmarks.quality.real_teachers trained")
    options = parser.parse_args(arguments)
    name, steps, matrix_name, on, ipc, soft = options.data, options.prior, options.matrix, options.on, options.ipc, options.soft
    progress = OnTerminal()
    images, test = images_of(real_data(name), "train", on)
    prior = Prior.from_pretrained(prior_folder(name, steps))
    inputs = MethodInputs(images, IMAGE_SIZE, prior=prior, teacher=Teacher.load(teacher_folder(name)) if soft else None)
    matrix = read_matrix(matrix_file(matrix_name), {"ipc": ipc, "distillation_seeds": options.seeds})
    if "protocols" not in matrix.model_fields_set:
        matrix = matrix.model_copy(update={"protocols": (str(protocol_of(name, soft=soft)),)})
    folder = WORK / "matrices" / f"{name}-{steps}-{on}{'-soft' if soft else ''}"
    rows = []
    for size in matrix.ipc:
        part = matrix.model_copy(update={"ipc": (size,)})
        comparison = compare(part, inputs, test, folder, settings=COMMON, progress=progress)
        rows += kept_rows(comparison.rows, "class_names")
        print(accuracy_table(comparison.rows))
        only = "" if ipc is None else "-ipc" + "-".join(map(str, ipc))
        chosen = matrix.model_dump(mode="json", exclude={"protocols"})
        protocols = [Path(protocol).name for protocol in matrix.protocols]
        settings = {"matrix": chosen, "protocols": protocols, "common": COMMON, "prior_steps": steps, "on": on}
        record(f"{name}-{matrix_name}-{on}{only}", settings, rows)


if __name__ == "__main__":
    main()
