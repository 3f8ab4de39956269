"""Imports a teacher that others trained: weights from a file, class names in the order of its outputs, the range of its images."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d3hr.data.class_names import names_in_order
from d3hr.data.codec import require_side
from d3hr.data.dataset import ImageData
from d3hr.errors import SettingsError, listed
from d3hr.evaluation.images import real_images
from d3hr.evaluation.outside_weights import IMPORTED, outputs_of, put_weights, read_outside_weights
from d3hr.evaluation.students import new_student
from d3hr.evaluation.teachers import MAX_SIDE, Channels, Teacher
from d3hr.evaluation.training import score
from d3hr.fileio.checksums import digest_of_tensors
from d3hr.fileio.names import composed_names
from d3hr.fileio.staging import StagedFolder
from d3hr.prior.networks import default_device
from d3hr.progress import SILENT, Progress


def import_teacher(
    weights: str | Path,
    out: str | Path,
    *,
    student: str,
    class_names: str | Path | Sequence[str],
    image_size: int = 32,
    mean: Channels | None = None,
    std: Channels | None = None,
    test: ImageData | None = None,
    progress: Progress = SILENT,
) -> Teacher:
    """Make a teacher of weights from outside, test it once where there are test images, and return it, loaded from ``out``.

    Args:
        weights: a ``.safetensors`` file, or a state dict that PyTorch saved (``.pth``, ``.pt``); what else a file holds is not loaded.
        out: folder to write.
        student: the network, one of :data:`~d3hr.evaluation.outside_weights.IMPORTED`.
        class_names: the name of each output, in order, or a file of them (:func:`~d3hr.data.class_names.names_in_order`).
        image_size: side in pixels that it was trained on.
        mean: what it takes: RGB in [0, 1], less this mean, over ``std``; both, or none for images in [-1, 1].
        std: positive, for each channel.
        test: real images of the same classes; without them its accuracy is not known.

    Raises:
        SettingsError: another student, a mean without std, or class names that are not one different name for each output.
        DataError: the file cannot be read, or does not fit.
        ClassMismatch: the test images are of other classes.
    """
    if student not in IMPORTED:
        raise SettingsError(f"Weights of {student} cannot be imported.", found=repr(student), hint=f"use one of {', '.join(IMPORTED)}.")
    if require_side(image_size) > MAX_SIDE:
        raise SettingsError("The image size is too large.", found=f"{image_size}", hint=f"use at most {MAX_SIDE} pixels.")
    _require_range(mean, std)
    file = Path(weights)
    tensors = read_outside_weights(file)
    names = composed_names(names_in_order(class_names))
    _require_names(names, outputs_of(tensors), file)
    network = new_student(student, len(names), image_size)
    put_weights(network, student, tensors, file)
    digest = digest_of_tensors({name: value.contiguous() for name, value in tensors.items()}, {})
    key = {
        "kind": "imported teacher",
        "weights": digest,
        "student": student,
        "class_names": names,
        "image_size": image_size,
        "mean": mean,
        "std": std,
        "test": None if test is None else test.fingerprint,
    }
    about: dict[str, Any] = {"imported": {"file": file.name, "tensors": digest}, "test": None, "accuracy": None, "top5": None}
    teacher = Teacher(network.to(default_device()).eval(), student, names, image_size, about, None, mean, std)
    with StagedFolder(out, key) as stage:
        stage.report(progress)
        if not stage.finished:
            if test is not None:
                found = score(teacher.logits, real_images(test, names, image_size))
                about |= {
                    "test": {"source": test.source, "split": test.split, "fingerprint": test.fingerprint, "images": len(test)},
                    "accuracy": found.accuracy,
                    "top5": found.top5,
                }
            teacher.save(stage.path)
            stage.commit()
    return Teacher.load(out)


def _require_range(mean: Channels | None, std: Channels | None) -> None:
    if (mean is None) != (std is None):
        found = "--mean alone" if std is None else "--std alone"
        raise SettingsError("The mean and the std of the images belong together.", found=found, hint="give both --mean and --std, or none.")
    if std is not None and not all(math.isfinite(value) and value > 0 for value in std):
        raise SettingsError("--std must be positive.", found=f"{std}", hint="give that of RGB in [0, 1]: ImageNet's is .229, .224, .225.")
    if mean is not None and not all(math.isfinite(value) for value in mean):
        raise SettingsError("--mean must be finite.", found=f"{mean}", hint="give that of RGB in [0, 1]: ImageNet's is .485, .456, .406.")


def _require_names(names: Sequence[str], outputs: int | None, file: Path) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    hint = "give --class-names one name per output, in their order."
    if outputs is not None and len(names) != outputs:
        raise SettingsError(f"{file} has {outputs} outputs.", found=f"{len(names)} class names", hint=hint)
    if twice or not all(names) or len(names) < 2:
        found = f"several outputs called {listed(twice)}" if twice else f"{list(names)}"
        raise SettingsError("The class names are not a different name for each output.", found=found, hint=hint)
