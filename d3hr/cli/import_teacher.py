"""``d3hr import-teacher``: a teacher whose weights come from elsewhere."""

from pathlib import Path

from d3hr.cli.options import READING
from d3hr.cli.output import Result
from d3hr.errors import listed
from d3hr.progress import OnTerminal


def import_teacher(
    weights: str,
    *,
    student: str,
    class_names: str,
    out: str,
    image_size: int = 32,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    test: str | None = None,
    test_split: str | None = None,
) -> Result:
    """Make a teacher of a ResNet that others trained, such as torchvision's or timm's.

    Args:
        weights: .safetensors file, or .pth or .pt file of a state dict
        student: its network: resnet18, resnet50, resnet101; or resnet20, resnet32, resnet44, resnet56, those for CIFAR
        class_names: name of each output, in order: '[cat, dog]'; or a file with one name per line (.txt), or YAML or JSON "0: cat"
        out: folder to write the teacher to
        image_size: side in pixels that it was trained on; up to 64, the stem of resnet18 and deeper is 3x3
        mean: mean of RGB in [0, 1] that was subtracted from its images, such as '[.485, .456, .406]'; images are in [-1, 1] without it
        std: what they were divided by then, such as '[.229, .224, .225]'
        test: real images of the same classes, to measure its accuracy; it is not known without them
        test_split: split of the test images
    """
    from d3hr.evaluation.importing import import_teacher as import_from
    from d3hr.fileio.staging import require_free_or_ours

    require_free_or_ours(out)
    progress = OnTerminal()
    tested = READING.load(test, test_split, progress, test=True) if test else None
    teacher = import_from(
        weights, out, student=student, class_names=class_names, image_size=image_size, mean=mean, std=std, test=tested, progress=progress
    )
    accuracy = teacher.about["accuracy"]
    names = listed(teacher.class_names, limit=3)
    found = "its accuracy is not known" if tested is None else f"{100 * accuracy:.1f} % of {len(tested):,} test images right"
    text = f"{student} with the outputs {names}: {found}. It is in {out}."
    return Result(text, {"out": out, "student": student, "classes": list(teacher.class_names), "accuracy": accuracy}, Path(out))
