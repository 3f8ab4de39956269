"""Finds the best teacher for a number of images: students of random real images, with the stored soft labels of each epoch's teacher.

One ConvNet-3 is trained on the training images that are not held out, and kept after some epochs; students are tested on the images that
are. Everything is kept in benchmarks/work, and a stopped sweep continues.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness import WORK, argument_parser, kept_rows, record
from benchmarks.quality.real_matrix import protocol_of
from benchmarks.real_data import IMAGE_SIZE, NAMES, images_of, real_data
from d3hr.comparison.matrix import Matrix, MatrixRow
from d3hr.comparison.run import compare
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.teacher_training import train_teacher
from d3hr.evaluation.teachers import Teacher
from d3hr.methods.job import MethodInputs
from d3hr.progress import OnTerminal

EPOCHS = (1, 2, 3, 5, 8, 12)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", choices=NAMES)
    parser.add_argument("--epochs", type=int, nargs="*", default=list(EPOCHS), help="epochs to keep; the training is as long as the last")
    parser.add_argument("--ipc", type=int, nargs="*", default=[1, 10, 50], help="images per class")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="seeds of the random choices")
    options = parser.parse_args(arguments)
    name, epochs, progress = options.data, sorted(options.epochs), OnTerminal()
    train, test = images_of(real_data(name), "train", "validation")
    learning = protocol_named("teacher").model_copy(update={"epochs": epochs[-1], "checks": 1})
    folder = WORK / "teacher-sweep" / "-".join([name, *map(str, epochs)])
    folder.mkdir(parents=True, exist_ok=True)
    train_teacher(train, folder / "teacher", test=test, student="convnet3", protocol=learning, at_epochs=epochs, progress=progress)
    matrix = Matrix(
        methods=(MatrixRow(method="random_real"),),
        ipc=tuple(options.ipc),
        distillation_seeds=tuple(options.seeds),
        protocols=(str(protocol_of(name, soft=True)),),
    )
    figures = []
    for epoch in epochs:
        teacher = Teacher.load(folder / "teacher" / "epochs" / str(epoch))
        comparison = compare(
            matrix, MethodInputs(train, IMAGE_SIZE, teacher=teacher), test, folder / f"students-{epoch}", progress=progress
        )
        rows = kept_rows(comparison.rows, "class_names")
        figures.append({"epoch": epoch, "teacher_accuracy": teacher.about["accuracy"], "rows": rows})
        for row in rows:
            accuracy = f"{100 * row['accuracy_mean']:.1f} +- {100 * row['accuracy_std']:.1f}"
            print(f"epoch {epoch}, teacher {100 * teacher.about['accuracy']:.1f} %, IPC {row['ipc']}: {accuracy} %")
    settings = {"matrix": matrix.model_dump(mode="json", exclude={"protocols"}), "protocol": protocol_of(name, soft=True).name}
    record(f"{name}-teacher-sweep", {**settings, "teacher": learning.model_dump(mode="json"), "on": "validation"}, figures)


if __name__ == "__main__":
    main()
