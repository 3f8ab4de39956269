"""The interface that all methods share: the settings of a method, the networks that it needs, and one call that makes a set."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from d3hr.distillation.overrides import PresetOverrides
from d3hr.distillation.settings import Network
from d3hr.errors import SettingsError, settings_error
from d3hr.execution.base import SERIAL, Execution
from d3hr.methods.job import Job, MethodInputs
from d3hr.progress import SILENT, Progress
from d3hr.sets.distilled_set import DistilledSet


class MethodSettings(BaseModel):
    """The settings of a method that has none, and the base of those of all other methods."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @property
    def needs(self) -> frozenset[Network]:
        """The networks that the method needs with these settings."""
        return frozenset()

    def check(self, inputs: MethodInputs) -> None:
        """Raise an error if the method cannot work on ``inputs``, which have the networks that it needs."""


class PriorMethodSettings(MethodSettings, PresetOverrides):
    """Settings of a method whose images a prior generates: a preset of d3hr, and what differs from it.

    The images have the prior's size, and the prior must have every class.
    """

    @property
    def needs(self) -> frozenset[Network]:
        """A prior."""
        return frozenset({"prior"})

    def check(self, inputs: MethodInputs) -> None:
        """Refuse another image size than the prior's, classes that it lacks, and a grid or level that its schedule lacks."""
        assert inputs.prior is not None
        if inputs.image_size != inputs.prior.image_size:
            raise SettingsError(
                "Images that a prior draws have its size.",
                found=f"--image-size {inputs.image_size}",
                hint=f"use --image-size {inputs.prior.image_size}, or leave it out.",
            )
        inputs.prior.schedule.path(self.resolved.statistics_level, self.resolved.steps)
        _ = inputs.conditioning


S = TypeVar("S", bound=MethodSettings)


@dataclass(frozen=True)
class Method(Generic[S]):
    """A way to make a set.

    Attributes:
        name: what commands and manifests call it.
        summary: one phrase, for tables.
        settings: the model of its settings.
        write: makes the set.
    """

    name: str
    summary: str
    settings: type[S]
    write: Callable[[Job, S], DistilledSet]

    @property
    def generates(self) -> bool:
        """Whether a prior generates the images, which then have its size; otherwise they are made of real pixels, at any size."""
        return issubclass(self.settings, PriorMethodSettings)

    @property
    def options(self) -> dict[str, Any]:
        """Name -> default of each setting; where None is the default, a preset decides."""
        return {name: field.default for name, field in self.settings.model_fields.items()}

    def parse(self, settings: Mapping[str, Any], networks: Collection[Network]) -> S:
        """Return checked settings.

        Args:
            settings: those that differ from the defaults.
            networks: the networks that are given.

        Raises:
            SettingsError: a setting is unknown or out of range, or the method needs a network that is not given; it names method and flag.
        """
        unknown = sorted(settings.keys() - self.options.keys())
        if unknown:
            raise SettingsError(
                f"Method {self.name} has no setting {unknown[0]!r}.",
                found=f"--settings with {', '.join(unknown)}",
                hint=f"use: {', '.join(self.options)}." if self.options else "it takes none: leave out --settings.",
            )
        try:
            parsed = self.settings(**settings)
        except ValidationError as error:
            raise settings_error(error, f"Method {self.name}, --settings ", "correct the value.") from None
        for network in sorted(parsed.needs - set(networks)):
            raise SettingsError(f"Method {self.name} needs a {network}.", found=f"no {network}", hint=f"give --{network}.")
        return parsed

    def check(self, inputs: MethodInputs, settings: Mapping[str, Any]) -> S:
        """Return checked settings, as :meth:`parse` does, and make sure that the method can work on ``inputs``.

        Raises:
            SettingsError: as :meth:`parse`, or the image size does not fit.
            ClassMismatch: prior or teacher lack a class.
        """
        parsed = self.parse(settings, inputs.networks)
        parsed.check(inputs)
        return parsed

    def make(
        self,
        inputs: MethodInputs,
        out: str | Path,
        *,
        ipc: int,
        seed: int = 0,
        shared: str | Path,
        execution: Execution = SERIAL,
        progress: Progress = SILENT,
        **settings: Any,
    ) -> DistilledSet:
        """Make a set, continue where an earlier run was stopped, or return the set that it finished.

        Args:
            inputs: real images, and the networks that the method needs.
            out: folder to write.
            ipc: images per class.
            seed: seed of the method's random draws.
            shared: folder for what depends neither on ``ipc`` nor on ``seed``: computed once, and found again by what decides it.
            execution: where work that is divided into tasks runs; the set does not depend on it.
            progress: where to report.
            settings: settings that differ from :attr:`options`.

        Raises:
            SettingsError: a setting is unknown or out of range, or something the method needs is missing.
            ClassMismatch: prior or teacher lack a class.
            DataError: a class has too few images.
            OutputError: ``out`` holds something else.
            NumericalError: a latent or a pixel is not finite.
        """
        parsed = self.check(inputs, settings)
        return self.write(Job(self.name, inputs, Path(out), ipc, seed, Path(shared), progress, execution), parsed)
