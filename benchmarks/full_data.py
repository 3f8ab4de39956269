"""Full-data sanity: what ConvNet-3 reaches on all of the training images with the teacher recipe.

Run:   python benchmarks/full_data.py DATA NAME EPOCHS      (for example CIFAR10 cifar10 30)

A stopped run goes on from its checkpoint in benchmarks/work/full_data. Two cores make about 250 images a second at 32 pixels.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from record import record

from d3hr.data.dataset import load_images
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.teacher_training import train_teacher
from d3hr.progress import OnTerminal

WORK = Path(__file__).parent / "work" / "full_data"


def main(data: str, name: str, epochs: int) -> None:
    progress = OnTerminal()
    started = time.monotonic()
    protocol = protocol_named("teacher").model_copy(update={"epochs": epochs})
    images, test = load_images(data, progress=progress), load_images(data, split="test", progress=progress)
    WORK.mkdir(parents=True, exist_ok=True)
    teacher = train_teacher(images, WORK / f"{name}-{epochs}", test=test, student="convnet3", protocol=protocol, progress=progress)
    record(
        f"full_data_{name}",
        {"student": "convnet3", "image_size": teacher.image_size, "protocol": teacher.about["protocol"], "seed": teacher.about["seed"]},
        {
            "train_images": len(images),
            "test_images": len(test),
            "test_accuracy": teacher.about["accuracy"],
            "minutes_of_this_call": round((time.monotonic() - started) / 60, 1),
        },
    )
    print(f"{name}: {100 * teacher.about['accuracy']:.2f} %")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
