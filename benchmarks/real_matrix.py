"""Runs a matrix of methods on a real data set; every set and training is kept, so a stopped run goes on.

Run:   python benchmarks/real_matrix.py fashion_mnist main --prior 4000 --on test

Matrices lie in benchmarks/matrices; `--on validation` tests on held-out training images, on which everything is chosen. Rows are recorded
after each number of images per class. A matrix that names no protocols has that of its data set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from real_data import IMAGE_SIZE, WORK, images_of, real_data
from real_priors import prior_folder
from real_teachers import teacher_folder
from record import record
from rows import kept_rows

from d3hr import Prior
from d3hr.comparison.matrix import read_matrix
from d3hr.comparison.run import compare
from d3hr.comparison.tables import accuracy_table
from d3hr.evaluation.teachers import Teacher
from d3hr.methods.registry import Materials
from d3hr.progress import OnTerminal

HERE = Path(__file__).parent
PROTOCOLS = {"fashion_mnist": "short", "cifar10": "short-shifts", "tiny_imagenet10": "short-shifts"}
"""How students are trained on each data set; with soft labels the files end in -stored."""
COMMON = {"preset": "gentle", "max_images_per_class": 1000}
"""Settings of every row that does not say otherwise: statistics of a thousand images of each class."""


def protocol_of(name: str, *, soft: bool = False) -> Path:
    """Return the file of a data set's protocol."""
    return HERE / "protocols" / f"{PROTOCOLS[name]}{'-stored' if soft else ''}.yaml"


def main(name: str, matrix_name: str, steps: int, on: str, ipc: list[int] | None, seeds: list[int] | None, soft: bool) -> None:
    progress = OnTerminal()
    images, test = images_of(real_data(name), "train", on)
    prior = Prior.from_pretrained(prior_folder(name, steps))
    materials = Materials(images, IMAGE_SIZE, prior=prior, teacher=Teacher.load(teacher_folder(name)) if soft else None)
    matrix = read_matrix(HERE / "matrices" / f"{matrix_name}.yaml", {"ipc": ipc, "distillation_seeds": seeds})
    if "protocols" not in matrix.model_fields_set:
        matrix = matrix.model_copy(update={"protocols": (str(protocol_of(name, soft=soft)),)})
    folder = WORK / "matrices" / f"{name}-{steps}-{on}{'-soft' if soft else ''}"
    rows = []
    for size in matrix.ipc:
        part = matrix.model_copy(update={"ipc": (size,)})
        found = compare(part, materials, test, folder, settings=COMMON, progress=progress)
        rows += kept_rows(found.rows, "class_names")
        print(accuracy_table(found.rows))
        only = "" if ipc is None else "-ipc" + "-".join(map(str, ipc))
        chosen = matrix.model_dump(mode="json", exclude={"protocols"})
        protocols = [Path(protocol).name for protocol in matrix.protocols]
        about = {"matrix": chosen, "protocols": protocols, "common": COMMON, "prior_steps": steps, "on": on}
        record(f"{name}-{matrix_name}-{on}{only}", about, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("matrix")
    parser.add_argument("--prior", type=int, required=True, metavar="STEPS")
    parser.add_argument("--on", choices=["validation", "test"], required=True)
    parser.add_argument("--ipc", type=int, nargs="*")
    parser.add_argument("--seeds", type=int, nargs="*")
    parser.add_argument("--soft", action="store_true", help="soft labels, of the teacher of benchmarks/real_teachers.py")
    given = parser.parse_args()
    main(given.name, given.matrix, given.prior, given.on, given.ipc, given.seeds, given.soft)
