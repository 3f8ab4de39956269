"""Trains the ConvNet-3 whose answers are the soft labels of the real-data benchmarks.

Run:   python benchmarks/real_teachers.py fashion_mnist 4      (epochs over the training images that are not held out)

It lies in benchmarks/work/teachers, and a stopped training goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from real_data import IMAGE_SIZE, WORK, images_of, real_data
from record import record

from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.teacher_training import train_teacher
from d3hr.progress import OnTerminal


def teacher_folder(name: str) -> Path:
    """Return where the teacher of a data set lies."""
    return WORK / "teachers" / name


def main(name: str, epochs: int) -> None:
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
    main(sys.argv[1], int(sys.argv[2]))
