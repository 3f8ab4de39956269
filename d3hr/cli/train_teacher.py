"""``d3hr train-teacher``: a network trained on all the real images."""

from pathlib import Path

from d3hr.cli.options import READING, RUNNING, Reading, Running, warn_of_leak
from d3hr.cli.output import Result
from d3hr.errors import SettingsError
from d3hr.progress import OnTerminal


def train_teacher(
    data: str,
    *,
    test: str,
    out: str,
    student: str = "resnet18",
    protocol: str = "teacher",
    image_size: int | None = None,
    seed: int = 0,
    at_epochs: list[int] | None = None,
    device: str | None = None,
    split: str | None = None,
    test_split: str | None = None,
    reading: Reading = READING,
    running: Running = RUNNING,
) -> Result:
    """Train a network on a whole training set: a teacher for soft labels, and the accuracy on full data.

    Args:
        data: folder of class folders, archive, parquet or .npz file, Hub id, or digits
        test: the real images to test on, once, at the end
        out: folder to write the teacher to
        student: network to train, such as resnet18 or convnet3
        protocol: how to train it, a name or a YAML file; for digits and letters a file with "base: teacher" and "flip: false"
        image_size: side in pixels that it sees, by default the images' own
        seed: seed of weights, order and augmentation
        at_epochs: passes over the images after which the teacher is also kept, such as '[1, 2, 5]', in OUT/epochs/1, ...
        device: where everything is computed: cpu, cuda, cuda:1, mps; by default on the fastest there is
        split: train, validation, test, ...; train by default
        test_split: split of the test images
        reading: how images are read
        running: where it is trained: in this process
    """
    from d3hr.evaluation.protocols import require_protocol
    from d3hr.evaluation.teacher_training import train_teacher as train
    from d3hr.fileio.staging import require_free_or_ours

    if running != RUNNING:
        raise SettingsError(
            "A teacher is one training, and one process does it.",
            found=f"--execution {running.execution}",
            hint="leave it out; for several teachers start several commands, each with a --device of its own.",
        )
    require_protocol(protocol)
    require_free_or_ours(out)
    progress = OnTerminal()
    images = reading.load(data, split, progress)
    tested = reading.load(test, test_split, progress, test=True)
    warn_of_leak(images, tested, progress)
    teacher = train(
        images,
        out,
        test=tested,
        student=student,
        protocol=protocol,
        image_size=image_size,
        seed=seed,
        at_epochs=at_epochs or (),
        progress=progress,
    )
    accuracy = teacher.about["accuracy"]
    text = f"{student} trained on {len(images):,} images: {100 * accuracy:.1f} % of {len(tested):,} test images right. It is in {out}."
    return Result(text, {"out": out, "student": student, "classes": list(teacher.class_names), "accuracy": accuracy}, Path(out))
