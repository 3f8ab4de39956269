"""The methods by name. The method under test goes through the same interface as what it must beat, so no loop asks for a name."""

from typing import Any

from d3hr.errors import SettingsError
from d3hr.methods.base import Method
from d3hr.methods.chosen import ChosenSettings, MixedSettings, RealStartSettings, write_chosen
from d3hr.methods.gaussians import D3hrSettings, ForwardNoiseSettings, LatentGaussianSettings, write_from_gaussians
from d3hr.methods.patches import PatchSettings, write_patches
from d3hr.methods.prior_only import PriorOnlySettings, write_prior_only
from d3hr.methods.prototypes import PrototypeSettings, write_prototypes
from d3hr.methods.selection import RandomSettings, SelectionSettings, write_herding, write_k_center, write_k_means, write_random_real

_ALL: tuple[Method[Any], ...] = (
    Method("d3hr", "distilled (d3hr)", D3hrSettings, write_from_gaussians),
    Method("chosen", "chosen real images", ChosenSettings, write_chosen),
    Method("mixed", "chosen real images next to drawn ones", MixedSettings, write_chosen),
    Method("real_start", "chosen real images, inverted to a low level and denoised", RealStartSettings, write_chosen),
    Method("random_real", "random real images", RandomSettings, write_random_real),
    Method("herding", "real images by herding", SelectionSettings, write_herding),
    Method("k_center", "real images by k-center", SelectionSettings, write_k_center),
    Method("k_means", "real images nearest to k-means centres", SelectionSettings, write_k_means),
    Method("prior_only", "images drawn from the prior alone", PriorOnlySettings, write_prior_only),
    Method("forward_noise", "forward noise in place of inversion", ForwardNoiseSettings, write_from_gaussians),
    Method("latent_gaussian", "Gaussian of clean latents, decoded", LatentGaussianSettings, write_from_gaussians),
    Method("prototypes", "k-means prototypes of latents, denoised", PrototypeSettings, write_prototypes),
    Method("patches", "patches of real images that a teacher prefers", PatchSettings, write_patches),
)
METHODS: dict[str, Method[Any]] = {method.name: method for method in _ALL}
"""Name -> method."""


def method_named(name: str) -> Method[Any]:
    """Return a method.

    Raises:
        SettingsError: there is none of that name.
    """
    if name not in METHODS:
        raise SettingsError("Unknown method.", found=repr(name), hint=f"use one of: {', '.join(METHODS)}.")
    return METHODS[name]
