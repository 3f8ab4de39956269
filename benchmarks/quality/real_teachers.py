"""Trains the ConvNet-3 whose answers are the soft labels of the real-data benchmarks.

It is kept in benchmarks/work/teachers, and a stopped training continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import WORK, argument_parser, record
from benchmarks.real_data import IMAGE_SIZE, NAMES, images_of, real_data
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.teacher_training import train_teacher
from d3hr.progress import OnTerminal


def teacher_folder(name: str) -> Path:
    """Return the folder of a data set's teacher."""
    return WORK / "teachers" / name


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", choices=NAMES)
    parser.add_argument("epochs", type=int, help="passes over the training images that are not held out")
    options = parser.parse_args(arguments)
    name, epochs = options.data, options.epochs
    train, test = images_of(real_data(name), "train", "test")
    protocol = protocol_named("teacher").model_copy(update={"name": "teacher", "epochs": epochs, "precision": "bf16", "checks": 1})
    folder = teacher_folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    teacher = train_teacher(train, folder, test=test, student="convnet3", protocol=protocol, progress=OnTerminal())
    record(
        f"real_teachers_{name}",
        {"student": teacher.student, "image_size": IMAGE_SIZE, "protocol": teacher.about["protocol"]},
        {"train_images": len(train), "test_accuracy": teacher.about["accuracy"]},
    )


if __name__ == "__main__":
    main()
