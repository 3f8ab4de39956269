"""Which family a pretrained model is of."""

from d3hr.prior.families.denoiser import Denoiser
from d3hr.prior.families.dit import DiT
from d3hr.prior.families.one_step import require_path
from d3hr.prior.families.pixel import PixelUNet
from d3hr.prior.families.sit import SiT
from d3hr.prior.families.stable_diffusion import StableDiffusion
from d3hr.prior.families.stable_diffusion_3 import StableDiffusion3
from d3hr.prior.families.stable_diffusion_xl import StableDiffusionXL
from d3hr.prior.repository import Repository

FAMILIES: tuple[type[Denoiser], ...] = (DiT, SiT, StableDiffusion, StableDiffusionXL, StableDiffusion3, PixelUNet)
"""The families that d3hr can use."""


def family_of(repository: Repository) -> type[Denoiser]:
    """Return the family of a repository, by its pipeline.

    Raises:
        PriorError: it is of no family that there is, which it names, or a model of one step or a few.
    """
    if not repository.is_file:
        require_path(repository)
    for family in FAMILIES:
        if family.reads(repository):
            return family
    known = sorted(name for family in FAMILIES for name in family.pipelines)
    raise repository.unusable(f"its pipeline class is {repository.pipeline}; d3hr can use {', '.join(known)}")
