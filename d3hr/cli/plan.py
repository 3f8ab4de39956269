"""``d3hr plan``: what a distillation will cost."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from d3hr.cli.options import LOADING, READING, Loading, Precision, Reading
from d3hr.cli.output import Result
from d3hr.distillation.overrides import NO_CHANGES, DistillOverrides
from d3hr.distillation.presets import distill_settings
from d3hr.errors import SettingsError, flag
from d3hr.planning.machines import MOST_IMAGES, THESE_MACHINES, Machines
from d3hr.progress import OnTerminal

if TYPE_CHECKING:
    from d3hr.planning.shapes import PriorShape

DEFAULT_PRIOR = "facebook/DiT-XL-2-256"
"""Prior of a plan without data, unless another is named: the paper's."""


def plan(
    data: str | None,
    *,
    prior: str | None = None,
    ipc: int = 10,
    preset: str = "paper",
    class_map: str | None = None,
    autoencoder: str | None = None,
    precision: Precision = "auto",
    store: Literal["images", "statistics"] = "images",
    split: str | None = None,
    student: str = "convnet3",
    protocol: str | None = None,
    test_images: int = 0,
    evaluation_runs: int = 9,
    device: str | None = None,
    devices: int = 1,
    images: float | None = None,
    classes: int | None = None,
    distillation: DistillOverrides = NO_CHANGES,
    reading: Reading = READING,
    machines: Machines = THESE_MACHINES,
) -> Result:
    """Say what distilling and evaluating will cost, in time and memory, before anything runs. Settings left out are the preset's.

    Args:
        data: folder of class folders, archive, parquet or .npz file, Hub id, digits, or a recipe file (.yaml), with its settings; left out
            with --images and --classes
        prior: folder or Hub id of a prior, for a recipe by default its own; well-known ones are planned from their shape, without weights
        ipc: images per class
        preset: paper, fast (a fifth of its calls in inversion), released, mixture (five Gaussians per class), or gentle (for weak priors)
        class_map: YAML file of lines "class: class of the prior", for classes whose names do not match
        autoencoder: folder or Hub id of an autoencoder to use instead of the prior's own
        precision: arithmetic of the networks; auto is bf16 where this machine's device has units for it, else fp32
        store: images with the statistics next to them, or the statistics alone
        split: train, validation, test, ...; train by default
        student: network to evaluate with
        protocol: hard (1,000 steps), quick (200 steps) or paper-hard (the paper's, 1,000 to 2,000 epochs); by default as evaluate does
        test_images: real images that students are tested on
        evaluation_runs: students to train; by default as evaluate does, three on each of set, random real images and images of the prior
        device: the device to measure: cpu, cuda, cuda:1, mps; by default the fastest there is
        devices: devices like this one that share the work, a class at a time; with --images as --device-flops says
        images: number of images of data that are not at hand, such as 1e9
        classes: number of their classes
        distillation: settings that differ from the preset's
        reading: how images are read
        machines: machines that are not at hand, for data that are not
    """
    from d3hr.evaluation.evaluate import protocol_of_device
    from d3hr.evaluation.protocols import require_protocol
    from d3hr.planning.plan import plan as plan_distillation
    from d3hr.prior.class_matching import read_class_map

    options = distillation.options
    if data is None or images is not None or classes is not None:
        return _plan_beyond(data, images, classes, prior, devices, ipc, preset, precision, machines, options)
    if machines != THESE_MACHINES:
        raise SettingsError(
            "Flags of machines are for data that are not at hand.", found=f"data {data}", hint="give --images and --classes."
        )
    if data.endswith((".yaml", ".yml")):
        return _plan_recipe(data, ipc=ipc, prior=prior, devices=devices, given=list(options))
    if prior is None:
        raise SettingsError("A plan needs a prior.", found="no --prior", hint="give the prior that you will distil with.")
    distill_settings(preset, ipc=ipc, **options)  # refuses wrong settings before any image is read
    protocol = protocol or protocol_of_device()
    require_protocol(protocol)
    prior_classes = read_class_map(class_map) if class_map else None
    progress = OnTerminal()
    loaded = _known_shape(prior, precision) or Loading(autoencoder=autoencoder, precision=precision).load(prior, progress)
    real = reading.load(data, split, progress, verify=None)
    progress.say("measuring this device")
    planned = plan_distillation(
        real.counts,
        loaded,
        images=real,
        test_images=test_images,
        ipc=ipc,
        preset=preset,
        store=store,
        class_map=prior_classes,
        student=student,
        protocol=protocol,
        evaluation_runs=evaluation_runs,
        devices=devices,
        **options,
    )
    return Result(planned.as_text(), planned.as_values())


def _known_shape(prior: str, precision: Precision) -> "PriorShape | None":
    """Return the shape of a prior that is known without its weights, in a precision."""
    from d3hr.planning.known_shapes import known_shape
    from d3hr.prior.model import PRECISIONS
    from d3hr.prior.networks import default_device
    from d3hr.prior.precision import dtype_held

    dtype = dtype_held("auto", default_device()) if precision == "auto" else PRECISIONS[precision]
    shape = known_shape(prior)
    return shape and replace(shape, dtype=dtype)


def _plan_beyond(
    data: str | None,
    images: float | None,
    classes: int | None,
    prior: str | None,
    devices: int,
    ipc: int,
    preset: str,
    precision: Precision,
    machines: Machines,
    options: Mapping[str, Any],
) -> Result:
    """Plan for data that are not at hand, by default with the prior of the paper."""
    from d3hr.planning.beyond import plan_beyond
    from d3hr.planning.shapes import PriorShape

    if data is not None or images is None or classes is None:
        found = "both" if data is not None else "neither" if images is None and classes is None else "one of the two numbers"
        raise SettingsError(
            "A plan is of DATA, or of --images and --classes.",
            found=found,
            hint="give PHOTOS, or --images 1e9 --classes 20000.",
        )
    distill_settings(preset, ipc=ipc, **options)
    if not 1 <= images <= MOST_IMAGES:
        raise SettingsError("--images is a number of images.", found=f"{images:g}", hint=f"give 1 to {MOST_IMAGES:g}.")
    progress = OnTerminal()
    name = prior or DEFAULT_PRIOR
    shape = _known_shape(name, precision) or PriorShape.of(Loading(precision=precision).load(name, progress))
    progress.say(f"counting what {name} takes, and measuring this machine")
    planned = plan_beyond(round(images), classes, shape, devices=devices, ipc=ipc, preset=preset, machines=machines, **options)
    return Result(planned.as_text(), planned.as_values())


def _plan_recipe(file: str, *, ipc: int, prior: str | None, devices: int, given: list[str]) -> Result:
    from d3hr.recipes.planning import plan_recipe
    from d3hr.recipes.recipe import read_recipe

    if given:
        flags = ", ".join(map(flag, given))
        raise SettingsError("The settings of a recipe are those in its file.", found=flags, hint="change a copy of the file.")
    progress = OnTerminal()
    recipe = read_recipe(file)
    loaded = LOADING.load(prior, progress) if prior else None
    progress.say("measuring this device")
    planned = plan_recipe(recipe, ipc=ipc, prior=loaded, devices=devices)
    return Result(planned.as_text(), planned.as_values())
