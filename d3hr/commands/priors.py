"""How commands load the prior that a person names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from d3hr.progress import Progress

if TYPE_CHECKING:
    from d3hr.prior.model import Prior
    from d3hr.storage import Manifest

Precision = Literal["fp32", "bf16", "fp16"]


def load_prior(
    name: str, *, progress: Progress, precision: Precision = "fp32", autoencoder: str | None = None, device: str | None = None
) -> Prior:
    """Load a prior and say under which licence its weights are."""
    from d3hr.prior.model import PRECISIONS, Prior

    prior = Prior.from_pretrained(name, device=device, dtype=PRECISIONS[precision], autoencoder=autoencoder)
    say_licence(prior, progress)
    return prior


def prior_of_set(manifest: Manifest, name: str, *, progress: Progress, device: str | None = None) -> Prior:
    """Load the prior called ``name`` in the precision, and with the autoencoder, that a distilled set was made with."""
    precision = manifest.prior.get("precision", "fp32")
    return load_prior(name, progress=progress, precision=precision, autoencoder=manifest.prior.get("autoencoder"), device=device)


def say_licence(prior: Prior, progress: Progress) -> None:
    """Say what is known of the licence of a prior's weights, once in a command."""
    if prior.licence:
        progress.say(f"the weights of {prior.source} are under {prior.licence}; it applies to what is made with them")
