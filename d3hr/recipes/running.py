"""Runs a recipe: every step writes a folder of its own, so finished steps are never repeated."""

from collections.abc import Mapping
from pathlib import Path

from d3hr.comparison.run import compare_with_baselines
from d3hr.comparison.tables import Comparison
from d3hr.comparison.trainings import Setting
from d3hr.data.dataset import ImageData
from d3hr.data.opening import load_images
from d3hr.errors import DataError, listed
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import SERIAL, Execution
from d3hr.pipeline import distill, expand
from d3hr.prior.fit import fit_prior
from d3hr.prior.model import PRECISIONS, Prior
from d3hr.progress import SILENT, Progress
from d3hr.recipes.recipe import DataSection, Recipe


def run_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    ipc: int,
    execution: Execution = SERIAL,
    progress: Progress = SILENT,
    data: str | Path | None = None,
    test: str | Path | None = None,
    prior: str | Path | None = None,
    teacher: str | Path | None = None,
    device: str | None = None,
) -> Comparison:
    """Fit, distil and evaluate as a recipe says; return the rows of the distilled set and of its baselines.

    The prior (``out/prior``) and the class statistics (``out/statistics``) are shared by all numbers of images per class. Those of 10 write
    ``out/ipc10`` and ``out/ipc10-evaluation``. What an earlier call finished is reused.

    Args:
        recipe: the recipe.
        out: folder to write.
        ipc: images per class, one of the recipe's.
        execution: where distillation, drawing and trainings run; a fit is of this process, or of those that ``accelerate`` starts.
        progress: where to report.
        data: the training images, instead of the recipe's source: a folder or Hub id with the same columns and class names.
        test: the test images likewise, in the recipe's test split; by default ``data`` if that is given, else the recipe's source.
        prior: the pretrained prior, instead of the recipe's.
        teacher: folder of a teacher; students then learn from its soft labels, by the recipe's protocol for them.
        device: where the prior runs in distillation: ``cpu``, ``cuda``, ``mps``; by default the fastest there is.

    Raises:
        SettingsError: the recipe does not cover ``ipc``.
        DataError: the images cannot be read, or their classes are not those that the recipe renames.
        PriorError: the prior cannot be loaded.
        ClassMismatch: a class matches no class of the prior, or several; or the classes of test images or teacher differ.
        OutputError: ``out`` holds something else.
    """
    recipe.require_ipc(ipc)
    folder, section = Path(out), recipe.distill
    labeller = None if teacher is None else Teacher.load(teacher)
    images = _load(recipe.data, data, recipe.data.split, progress)
    if labeller is not None:
        labeller.require_classes(images.class_names, images.source)
    test_images = _load(recipe.data, test or data, recipe.data.test_split, progress, test=True)
    generator = _prior(recipe, images, folder / "prior", prior or recipe.starts_from, device, progress)
    statistics = distill(
        images,
        generator,
        folder / "statistics",
        preset=section.preset,
        store="statistics",
        class_map=recipe.class_map if recipe.fit is None else None,
        execution=execution,
        progress=progress,
        **section.options,
    )
    distilled = expand(statistics, generator, folder / f"ipc{ipc}", ipc=ipc, execution=execution, progress=progress)
    protocol = recipe.evaluate.soft_protocol if labeller else recipe.evaluate.protocol
    chosen = protocol_named(protocol, ipc=ipc, classes=len(distilled.class_names))
    return compare_with_baselines(
        distilled,
        test_images,
        folder / f"ipc{ipc}-evaluation",
        Setting(recipe.evaluate.student, chosen, labeller, recipe.evaluate.image_size),
        real=images,
        prior=generator,
        seeds=recipe.evaluate.seeds,
        execution=execution,
        progress=progress,
    )


def _prior(recipe: Recipe, images: ImageData, out: Path, start: str | Path, device: str | None, progress: Progress) -> Prior:
    """Return the prior to distil with, after fitting it if the recipe says so."""
    fit, dtype = recipe.fit, PRECISIONS[recipe.distill.precision]
    if fit is None:
        return Prior.from_pretrained(start, device=device, dtype=dtype)
    fit_prior(
        images,
        out,
        init=start,
        steps=fit.steps(len(images)),
        class_map=recipe.class_map,
        progress=progress,
        **fit.model_dump(exclude={"init", "epochs"}),
    )
    return Prior.from_pretrained(out, device=device, dtype=dtype)


def _load(section: DataSection, instead: str | Path | None, split: str, progress: Progress, *, test: bool = False) -> ImageData:
    images = load_images(
        instead or section.source,
        split=split,
        keep_duplicates=test,
        image_column=section.image_column,
        label_column=section.label_column,
        config=None if instead else section.config,
        progress=progress,
    )
    return images if section.class_names is None else corrected(images, section.class_names)


def corrected(images: ImageData, names: Mapping[str, str]) -> ImageData:
    """Return the same images with the right names of their classes; a source that has these already stays as it is.

    Args:
        images: the images.
        names: name in the source -> right name, in the order of the labels.

    Raises:
        DataError: the source has other names, or these in another order.
    """
    if set(images.class_names) == set(names.values()):
        return images
    if images.class_names != tuple(names):
        raise DataError(
            f"The classes of {images.source} are not those that the recipe corrects the names of.",
            found=f"[{listed(images.class_names)}], not [{listed(list(names))}]",
            hint="see whether the source has been put right, then take data.class_names out of the recipe.",
        )
    return images.renamed(list(names.values()))
