"""``d3hr evaluate``: the accuracy of a distilled set, next to that of baselines."""

from collections.abc import Sequence
from pathlib import Path

from d3hr.cli.options import READING, RUNNING, Reading, Running, warn_of_leak
from d3hr.cli.origins import data_of_set, or_else, prior_named, prior_of_set
from d3hr.cli.output import Result
from d3hr.fileio.names import sibling
from d3hr.progress import OnTerminal


def evaluate(
    distilled: str,
    *,
    test: str,
    test_split: str | None = None,
    data: str | None = None,
    split: str | None = None,
    prior: str | None = None,
    student: str = "convnet3",
    protocol: str | None = None,
    teacher: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    image_size: int | None = None,
    device: str | None = None,
    out: str | None = None,
    reading: Reading = READING,
    running: Running = RUNNING,
) -> Result:
    """Train a student on a distilled set and test it, and likewise on random real images and images drawn from the prior.

    Args:
        distilled: a distilled set, or a folder of class folders that another tool made
        test: the real images to test on
        test_split: split of the test images
        data: the real images to draw the random baseline from, by default those the set was made from
        split: split of those images
        prior: the prior to draw the other baseline from, by default the one the set was made with
        student: network to train, such as convnet3 or resnet18
        protocol: how to train it: hard, quick, paper-hard, paper-cifar, paper-imagenet, stored, rd3, or a YAML file; by default hard, or
            quick on a CPU
        teacher: folder of a teacher, for protocols of soft labels
        seeds: training seeds; each baseline is drawn anew for each
        image_size: side in pixels that students see, in training and in testing, by default the set's own
        device: where everything is computed: cpu, cuda, cuda:1, mps; by default on the fastest there is
        out: folder for baselines and results, by default DISTILLED-evaluation
        reading: how images are read
        running: where students are trained: each is a task
    """
    from d3hr.comparison.run import compare_with_baselines
    from d3hr.comparison.trainings import Setting
    from d3hr.evaluation.evaluate import protocol_of_device, require_teacher
    from d3hr.evaluation.protocols import protocol_named, require_protocol
    from d3hr.sets.distilled_set import open_set
    from d3hr.sets.image_set import require_images

    progress, execution = OnTerminal(), running.chosen()
    if protocol is None:
        protocol = protocol_of_device()
        progress.say(f"protocol {protocol}, the default on this device; --protocol takes others")
    require_protocol(protocol)
    subject = open_set(distilled)
    require_images(subject)
    manifest = subject.manifest
    chosen = protocol_named(protocol, ipc=subject.ipc, classes=len(subject.class_names))
    required_teacher = require_teacher(chosen, teacher, subject.class_names)
    where = prior_named(distilled, manifest, prior)
    folder = Path(out) if out else sibling(distilled, "-evaluation")
    real = data_of_set(distilled, subject, data, split, reading, progress)
    if real is None:
        progress.say("no row of random real images: give the real training images with --data")
    with or_else("--prior", "The prior-only row needs the prior that the set was made with."):
        loaded = prior_of_set(manifest, where, progress=progress, device=device) if manifest and where else None
    tested = reading.load(test, test_split, progress, test=True, record=manifest.data if manifest else None)
    if real is not None:
        warn_of_leak(real, tested, progress)
    comparison = compare_with_baselines(
        subject,
        tested,
        folder,
        Setting(student, chosen, required_teacher, image_size),
        real=real,
        prior=loaded,
        seeds=seeds,
        execution=execution,
        progress=progress,
    )
    text = f"{comparison.as_text()}\nKept in {folder}/results.json."
    return Result(text, {"out": str(folder), **comparison.as_values()}, folder)
