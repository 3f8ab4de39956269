"""``d3hr compare``: many methods, sizes, seeds, students and protocols."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d3hr.cli.options import LOADING, READING, RUNNING, Loading, Reading, Running, warn_of_leak
from d3hr.cli.output import Result
from d3hr.progress import OnTerminal


def compare(
    data: str,
    *,
    test: str,
    out: str,
    matrix: str = "baselines",
    prior: str | None = None,
    teacher: str | None = None,
    full_data: Sequence[str] = (),
    methods: Sequence[str] | None = None,
    ipc: Sequence[int] | None = None,
    distillation_seeds: Sequence[int] | None = None,
    training_seeds: Sequence[int] | None = None,
    students: Sequence[str] | None = None,
    protocols: Sequence[str] | None = None,
    settings: dict[str, Any] | None = None,
    image_size: int | None = None,
    student_size: int | None = None,
    split: str | None = None,
    test_split: str | None = None,
    loading: Loading = LOADING,
    reading: Reading = READING,
    running: Running = RUNNING,
) -> Result:
    """Compare methods under equal conditions: make every set and train every student on it, each once.

    Args:
        data: the real training images: folder of class folders, archive, parquet or .npz file, Hub id, or digits
        test: the real images to test on
        out: folder for sets, trainings and results; a stopped run goes on, and further matrices of the same data share it
        matrix: baselines, inversion-x-grouping, level, guidance, candidates or remedies, or a YAML file of your own
        prior: folder or Hub id of the diffusion prior, for methods that draw from one
        teacher: folder of a teacher, for soft labels and for methods that need one
        full_data: folders of networks trained on all the real images (d3hr train-teacher), from which HLR follows for the same student
        methods: names of methods, instead of the matrix's rows
        ipc: images per class, instead of the matrix's
        distillation_seeds: seeds of the sets, instead of the matrix's
        training_seeds: seeds of the students trained on the first set, instead of the matrix's; every further set has as many of its own
        students: networks, instead of the matrix's
        protocols: how to train, names or YAML files, instead of the matrix's
        settings: settings of every method that takes them, such as {preset: gentle}; those of a row come first
        image_size: side in pixels of the sets, by default the prior's, or the images' own
        student_size: side in pixels that students see, by default that of the sets; sets of real pixels are made at it
        split: split of the training images
        test_split: split of the test images
        loading: how the prior is loaded
        reading: how images are read
        running: where sets are made, and where students are trained: each is a task
    """
    from d3hr.comparison.matrix import read_matrix
    from d3hr.comparison.run import compare as run
    from d3hr.evaluation.teachers import Teacher
    from d3hr.fileio.staging import require_free_or_ours
    from d3hr.methods.job import MethodInputs

    changes = {
        "methods": methods,
        "ipc": ipc,
        "distillation_seeds": distillation_seeds,
        "training_seeds": training_seeds,
        "students": students,
        "protocols": protocols,
    }
    chosen = read_matrix(matrix, changes)
    require_free_or_ours(out)
    execution, progress = running.chosen(), OnTerminal()
    loaded = loading.load(prior, progress) if prior else None
    images, tested = reading.load(data, split, progress), reading.load(test, test_split, progress, test=True)
    warn_of_leak(images, tested, progress)
    inputs = MethodInputs(
        images,
        image_size or (loaded.image_size if loaded else images.image_size),
        prior=loaded,
        teacher=Teacher.load(teacher) if teacher else None,
        class_map=loading.classes(),
    )
    networks = [Teacher.load(folder) for folder in full_data]
    progress.say(f"{chosen.trainings} trainings: {len(chosen.methods)} methods, IPC {', '.join(map(str, chosen.ipc))}")
    comparison = run(
        chosen,
        inputs,
        tested,
        out,
        settings=settings,
        full_data=networks,
        image_size=student_size,
        execution=execution,
        progress=progress,
    )
    text = f"{comparison.as_text()}\nKept in {out}/results.json and {out}/results.csv."
    return Result(text, {"out": out, **comparison.as_values()}, Path(out))
