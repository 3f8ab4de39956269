"""How commands load the prior that a person names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from d3hr.errors import PriorError
from d3hr.progress import Progress

if TYPE_CHECKING:
    from d3hr.manifest import Manifest
    from d3hr.prior.model import Prior

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Loading:
    """How a prior is loaded, and its classes matched: flags of every command that draws from one.

    Args:
        class_map: YAML file of lines "class: class of the prior", for classes whose names do not match
        autoencoder: folder or Hub id of an autoencoder to use instead of the prior's own
        precision: arithmetic of the prior's networks; statistics are float64 in any case
        device: where the networks run: cpu, cuda, mps; by default the fastest there is
        compile: translate the transformer by torch.compile: minutes at first; meant for GPUs, no gain measured on CPUs
    """

    class_map: str | None = None
    autoencoder: str | None = None
    precision: Precision = "fp32"
    device: str | None = None
    compile: bool = False

    def load(self, name: str, progress: Progress) -> Prior:
        """Load a prior and say under which licence its weights are."""
        return load_prior(
            name,
            progress=progress,
            precision=self.precision,
            autoencoder=self.autoencoder,
            device=self.device,
            compile=self.compile,
        )

    def classes(self) -> dict[str, str] | None:
        """Return class -> prior's class, as far as a file names them."""
        from d3hr.prior.conditioning import read_class_map

        return read_class_map(self.class_map) if self.class_map else None


LOADING = Loading()


def load_prior(
    name: str,
    *,
    progress: Progress,
    precision: Precision = "fp32",
    autoencoder: str | None = None,
    device: str | None = None,
    compile: bool = False,
) -> Prior:
    """Load a prior and say under which licence its weights are."""
    from d3hr.prior.model import PRECISIONS, Prior

    prior = Prior.from_pretrained(name, device=device, dtype=PRECISIONS[precision], autoencoder=autoencoder, compile=compile)
    say_licence(prior, progress)
    return prior


def prior_of_set(manifest: Manifest, name: str, *, progress: Progress, device: str | None = None) -> Prior:
    """Load the prior called ``name`` in the precision, and with the autoencoder, that a distilled set was made with."""
    from d3hr.prior.model import PRECISIONS

    precision = manifest.prior.get("precision") or "fp32"
    if precision not in PRECISIONS:
        raise PriorError(
            "The precision that the set was made in is unknown.", found=repr(precision), do=f"use one of {', '.join(PRECISIONS)}."
        )
    return load_prior(
        name, progress=progress, precision=cast(Precision, precision), autoencoder=manifest.prior.get("autoencoder"), device=device
    )


def say_licence(prior: Prior, progress: Progress) -> None:
    """Say what is known of the licence of a prior's weights, once in a command."""
    if prior.licence:
        progress.say(f"the weights of {prior.source} are under {prior.licence}; it applies to what is made with them")
