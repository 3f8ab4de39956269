"""Flags that several commands share: how images are read, how a prior is loaded, where the work runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from d3hr.distillation.overrides import DistillOverrides, ExpandOverrides, with_fields_of
from d3hr.errors import SettingsError, listed
from d3hr.formatting import percent
from d3hr.planning.machines import Machines
from d3hr.prior.settings import FitSettings

if TYPE_CHECKING:
    from d3hr.data.dataset import ImageData
    from d3hr.data.record import DataRecord
    from d3hr.execution.base import Execution
    from d3hr.prior.model import Prior
    from d3hr.progress import Progress

_SHOWN = 3
"""Unreadable images that are named of those that are left out; the manifest names them all."""
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Reading:
    """How images are read: flags of every command that reads them.

    Args:
        on_bad_image: stop at unreadable images, or leave them out and count them
        fit: of pictures that are not square, keep the centre (crop, the default), add black (pad), or stretch them
        keep_duplicates: let an image that its class has several times count each time
        keep_similar_names: accept classes whose names differ only in case, spaces or Unicode form
        hold_out: share of each class's images to leave out, 0 to 1, the same ones each time; distill, where it chooses everything, compares
            on them, 0.2 by default; test images are all read
        image_column: column of images of a table, or of their files
        label_column: column of classes of a table
        data_config: configuration of a Hub source that has several, such as full_size
        label_pattern: regular expression whose group label finds the class in the path of each image: '(?P<label>[a-z]+)_'
        class_names: file of other names for the classes: YAML or JSON "label: name", or one name per line for 0, 1, ... in a .txt
    """

    on_bad_image: Literal["error", "skip"] = "error"
    fit: Literal["crop", "pad", "stretch"] | None = None
    keep_duplicates: bool = False
    keep_similar_names: bool = False
    hold_out: float = 0.0
    image_column: str | None = None
    label_column: str | None = None
    data_config: str | None = None
    label_pattern: str | None = None
    class_names: str | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that give these values, less those that are as by default."""
        words: list[str] = []
        for name, value in vars(self).items():
            if value != getattr(READING, name):
                words += [f"--{name.replace('_', '-')}", str(value).lower() if isinstance(value, bool) else str(value)]
        return tuple(words)

    def load(
        self,
        source: str,
        split: str | None,
        progress: Progress,
        *,
        test: bool = False,
        record: DataRecord | None = None,
        verify: bool | None = True,
    ) -> ImageData:
        """Open a source and report what is in it.

        Args:
            source: its name.
            split: the split to read.
            progress: where to report.
            test: whether accuracy is measured on the images: duplicates stay, so that the test set is the published one.
            record: what the manifest of a set says of its images, which these must be fitted like.
            verify: whether to decode every image; None for the headers alone where there are many.
        """
        from d3hr.data.opening import load_images

        images = load_images(
            source,
            split=split,
            on_bad_image=self.on_bad_image,
            fit=self.fit or (record.fit if record else "crop"),
            keep_duplicates=self.keep_duplicates or test or (record is not None and record.keep_duplicates),
            keep_similar_names=self.keep_similar_names,
            hold_out=0.0 if test else self.hold_out or (record.hold_out if record else 0.0),
            image_column=self.image_column,
            label_column=self.label_column,
            config=self.data_config,
            label_pattern=self.label_pattern,
            class_names=self.class_names,
            verify=verify,
            progress=progress,
        )
        progress.say(_about(images))
        return images


@dataclass(frozen=True)
class Loading:
    """How a prior is loaded, and its classes matched: flags of every command that draws from one.

    Args:
        class_map: YAML file of lines "class: class of the prior", for classes whose names do not match; or "class: prompt"
        autoencoder: folder or Hub id of an autoencoder to use instead of the prior's own
        prompt: prompt of each class, {name} its name, for text-to-image priors; by default 'a photo of a {name}'
        negative_prompt: what guidance leads away from, for text-to-image priors; by default nothing in particular
        lora: folder or Hub id of a LoRA adapter in diffusers' format, for text-to-image priors
        precision: arithmetic of the prior's networks; auto is bf16 where the device has units for it, else fp32; statistics are float64 in
            any case
        device: where everything is computed: cpu, cuda, cuda:1, mps; by default on the fastest there is
        compile: translate the transformer by torch.compile: minutes at first; meant for GPUs, no gain measured on CPUs
    """

    class_map: str | None = None
    autoencoder: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    lora: str | None = None
    precision: Precision = "auto"
    device: str | None = None
    compile: bool = False

    def load(self, name: str, progress: Progress) -> Prior:
        """Load a prior and say under which licence its weights are."""
        from d3hr.prior.model import PRECISIONS, Prior

        prior = Prior.from_pretrained(
            name,
            device=self.device,
            dtype="auto" if self.precision == "auto" else PRECISIONS[self.precision],
            autoencoder=self.autoencoder,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            lora=self.lora,
            compile=self.compile,
        )
        if self.precision == "auto" and prior.precision != "fp32":
            progress.say(f"precision {prior.precision}, for which {prior.device.type} has units; --precision fp32 computes in float32")
        say_licence(prior, progress)
        for note in prior.denoiser.notes:
            progress.say(f"{prior.source}: {note}")
        say_weakness(prior, progress)
        return prior

    def classes(self) -> dict[str, str] | None:
        """Return class -> prior's class, as far as a file names them."""
        from d3hr.prior.class_matching import read_class_map

        return read_class_map(self.class_map) if self.class_map else None


@dataclass(frozen=True)
class Running:
    """Where tasks run: flags of every command whose work can be divided into tasks.

    Args:
        execution: here (in this process), processes (workers on this machine, one GPU each where there are any) or ray (a Ray cluster)
        workers: how many tasks to run at once; on Ray as many as there is room for by default
        threads: threads of each worker, 1 by default
        address: Ray cluster to use: auto (the default), host:port, or local for one on this machine alone
    """

    execution: Literal["here", "processes", "ray"] = "here"
    workers: int | None = None
    threads: int | None = None
    address: str | None = None

    def chosen(self) -> Execution:
        """Return the execution.

        Raises:
            SettingsError: a flag is given that has no part in this execution, or one that it needs is not.
        """
        from d3hr.execution.base import SERIAL
        from d3hr.execution.processes import WorkerProcesses
        from d3hr.execution.ray import RayCluster

        if self.execution != "ray":
            self._refuse("address", "--execution ray")
        if self.execution == "here":
            self._refuse("workers", "--execution processes")
            self._refuse("threads", "--execution processes, or set OMP_NUM_THREADS")
            return SERIAL
        threads = 1 if self.threads is None else self.threads
        if self.execution == "ray":
            return RayCluster(self.address or "auto", self.workers, threads)
        if self.workers is None:
            raise SettingsError("--execution processes needs --workers.", found="none given", hint="give one per GPU, or one per core.")
        return WorkerProcesses(self.workers, threads)

    def _refuse(self, flag: str, instead: str) -> None:
        value = getattr(self, flag)
        if value is not None:
            raise SettingsError(
                f"--{flag} has no part in --execution {self.execution}.",
                found=f"--{flag} {value}",
                hint=f"leave it out, or use {instead}.",
            )


@dataclass(frozen=True)
class Memory:
    """How much memory work may hold: flags of every command that draws sets.

    Args:
        memory_budget: memory that a group search may hold, and a batch of --batch-size auto: 512MiB, 4GiB, ...
    """

    memory_budget: str | None = None

    def budget(self) -> int | None:
        """Return the memory budget in bytes.

        Raises:
            SettingsError: it is no amount of memory.
        """
        from pydantic import ByteSize, TypeAdapter, ValidationError

        if self.memory_budget is None:
            return None
        try:
            return int(TypeAdapter(ByteSize).validate_python(self.memory_budget))
        except ValidationError:
            raise SettingsError(
                "--memory-budget is no amount of memory.",
                found=repr(self.memory_budget),
                hint="give bytes with a unit, such as 512MiB or 4GiB.",
            ) from None


@with_fields_of(FitSettings, FitSettings.model_fields.keys() - {"preset", "init", "autoencoder", "class_map"}, optional=False)
class FitFlags(BaseModel):
    """How the networks are trained: settings of a fit."""


READING, LOADING, RUNNING, MEMORY, AS_THE_PRESET = Reading(), Loading(), Running(), Memory(), FitFlags()
GROUPS: dict[str, type[Any]] = {
    "distillation": DistillOverrides,
    "drawing": ExpandOverrides,
    "training": FitFlags,
    "reading": Reading,
    "loading": Loading,
    "running": Running,
    "memory": Memory,
    "machines": Machines,
}
"""Parameters of commands that are groups of flags: each field of the class is a flag."""


def warn_of_leak(images: ImageData, test: ImageData, progress: Progress) -> None:
    """Say so where images to test on are among those that were trained on or drawn from."""
    shared = images.overlap(test)
    if shared == len(test):
        progress.say(
            "warning: the test images are the training images, so no accuracy here tells of new ones: give --test-split or other images"
        )
    elif shared:
        progress.say(f"warning: {shared} of {len(test)} test images are training images too: accuracies are too high by up to that share")


def say_weakness(prior: Prior, progress: Progress) -> None:
    """Warn of a fitted prior that its fit, or the error of its autoencoder, calls not good enough to draw from."""
    from d3hr.diagnostics.gate import known_verdict

    verdict = known_verdict(prior.source) if prior.source else None
    if verdict is not None and verdict.status == "failure":
        progress.say(f"warning: weak prior ({verdict.evidence}): {verdict.text}")


def say_licence(prior: Prior, progress: Progress) -> None:
    """Say what is known of the licence of a prior's weights, once in a command."""
    if prior.licence:
        progress.say(f"the weights of {prior.source} are under {prior.licence}; it applies to what is made with them")


def _about(images: ImageData) -> str:
    split = f", split {images.split}" if images.split else ""
    sizes = ["{}x{}".format(*size) for size in sorted(images.sizes)]
    extent = sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes from {sizes[0]} to {sizes[-1]}"
    side = f"{images.image_size} px a side (median)"
    lines = [f"{images.source}{split}: {len(images):,} images of {len(images.class_names)} classes, {extent}, {side}"]
    lines += images.notes
    if images.skipped:
        lines.append(f"left out, unreadable, {len(images.skipped)}: {listed(images.skipped, separator='; ', limit=_SHOWN)}")
    if images.cropped >= 0.1:
        lines.append(f"the centre crop drops {percent(images.cropped)} % of a picture, on average: --fit pad or stretch keeps all of it")
    if images.ignored:
        lines.append(f"ignored, not read as images: {len(images.ignored)} file(s) or folder(s), such as {images.ignored[0]}")
    return "\n".join(lines)
