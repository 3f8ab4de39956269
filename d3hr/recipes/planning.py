"""What a recipe will cost, from the facts that it states about its data set."""

from dataclasses import replace

from d3hr.errors import SettingsError
from d3hr.planning.counting import prior_needs
from d3hr.planning.known_shapes import SHAPES
from d3hr.planning.plan import plan
from d3hr.planning.shapes import PriorShape
from d3hr.planning.stages import Plan, Stage
from d3hr.prior.model import PRECISIONS, Prior
from d3hr.recipes.recipe import FitSection, Recipe

ROWS = 3
"""Sets that an evaluation trains on: the distilled one, random real images, images from the prior alone."""
_PASSES, _PASSES_CHECKPOINTED = 3, 4
"""Cost of a training step in forward passes: forward, backward at twice its cost, and forward again under gradient checkpointing."""


def plan_recipe(recipe: Recipe, *, ipc: int, prior: Prior | None = None, devices: int = 1) -> Plan:
    """Predict what a recipe will cost at one number of images per class, from fit to evaluation, without its data set.

    Args:
        recipe: the recipe.
        ipc: images per class, one of the recipe's.
        prior: the pretrained prior; by default its shape alone, if it is one of :data:`~d3hr.planning.known_shapes.SHAPES`.
        devices: devices like this one that share the work.

    Raises:
        SettingsError: the recipe does not cover ``ipc``, or the shape of its prior is not known.
    """
    recipe.require_ipc(ipc)
    data, section = recipe.data, recipe.distill
    shape = PriorShape.of(prior) if prior else SHAPES.get(recipe.starts_from)
    if shape is None:
        raise SettingsError(
            "The shape of the recipe's prior is not known beforehand.",
            found=recipe.starts_from,
            hint=f"give --prior, or plan with one of: {', '.join(SHAPES)}.",
        )
    of_network = replace(shape, dtype=PRECISIONS[section.precision])
    each, more = divmod(data.train_images, data.classes)
    planned = plan(
        {f"class {index}": each + (index < more) for index in range(data.classes)},
        of_network,
        test_images=data.test_images,
        ipc=ipc,
        preset=section.preset,
        student=recipe.evaluate.student,
        protocol=recipe.evaluate.protocol,
        student_size=recipe.evaluate.image_size,
        evaluation_runs=ROWS * len(recipe.evaluate.seeds),
        devices=devices,
        **section.options,
    )
    if recipe.fit is None:
        return planned
    similar = next(stage for name in ("invert", "denoise") for stage in planned.stages if stage.name == name and stage.flops)
    notes = (*planned.notes, f"the fit is assumed to run at the speed of stage {similar.name!r}; its memory is not planned")
    fit = _fit(recipe.fit, data.train_images, shape, similar.seconds / similar.flops, planned.devices)
    return replace(planned, stages=(fit, *planned.stages), notes=notes)


def _fit(fit: FitSection, images: int, shape: PriorShape, seconds_per_flop: float, devices: int) -> Stage:
    """Return the fine-tuning of the network as a stage."""
    passes = _PASSES_CHECKPOINTED if fit.gradient_checkpointing else _PASSES
    calls = fit.steps(images) * fit.batch_size
    flops = passes * calls * prior_needs(shape).network.flops
    seconds = flops * seconds_per_flop
    return Stage("fit", calls, flops, seconds, seconds / devices)
