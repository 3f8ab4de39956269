"""Accuracy of ConvNet-3 trained on all of the training images, with the protocol ``teacher``.

A stopped run continues from its checkpoint in benchmarks/work/full_data. Two cores train on about 250 images per second at 32 pixels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.harness import WORK, argument_parser, record
from d3hr.data.opening import load_images
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.teacher_training import train_teacher
from d3hr.progress import OnTerminal

FOLDER = WORK / "full_data"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("source", help="the images: a folder, or a Hub id")
    parser.add_argument("name", help="what the result file is called after, for example cifar10")
    parser.add_argument("epochs", type=int)
    options = parser.parse_args(arguments)
    source, name, epochs = options.source, options.name, options.epochs
    progress = OnTerminal()
    started = time.monotonic()
    protocol = protocol_named("teacher").model_copy(update={"epochs": epochs})
    images, test = load_images(source, progress=progress), load_images(source, split="test", progress=progress)
    FOLDER.mkdir(parents=True, exist_ok=True)
    teacher = train_teacher(images, FOLDER / f"{name}-{epochs}", test=test, student="convnet3", protocol=protocol, progress=progress)
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
    main()
