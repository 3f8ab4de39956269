"""How difficult each image of a class is for the prior: by how well it predicts noise that is added to it.

Legend: N images, C h w latent axes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from d3hr.distillation.ddim import SlopePredictor, check_finite
from d3hr.distillation.settings import USUAL_STEPS
from d3hr.prior.conditions import Condition
from d3hr.seeds import generator_for

BATCH = 64
"""Images in one network call."""


@torch.no_grad()
def denoising_loss(
    prior: SlopePredictor,
    latents: Tensor,
    labels: Condition | Tensor,
    *,
    levels: Sequence[int],
    noises: int,
    seed: int,
    steps: int = USUAL_STEPS,
) -> Tensor:
    """Return the mean squared error with which a prior, given the class, predicts noise in each image: float64 [N] on the CPU.

    At each level every image gets the same few noises, so that images differ by themselves alone. The mean is over levels, noises and
    dimensions of |q - q*|^2 at alpha z + sigma e, where q is the slope, noise or velocity: a loss that priors are trained on (DDPM, arXiv
    2006.11239, eq. 14). It is the order of difficulty of D2C. One network call for each image, level and noise, without guidance.

    Args:
        prior: the diffusion model.
        latents: clean latents [N, C, h, w].
        labels: the condition of a class, or rows [N] of the prior's label table.
        levels: where noise is added, each 1 to ``steps - 1``, at least one.
        noises: how many at each level, at least 1.
        seed: of the noises; they do not depend on the class.
        steps: points of the sampling grid.

    Raises:
        SettingsError: a level is not on the grid.
        NumericalError: a prediction is not finite.
    """
    losses = torch.zeros(len(latents), dtype=torch.float64)
    for level in levels:
        point = prior.schedule.path(level, steps)[-1]
        for index in range(noises):
            noise = torch.randn(latents.shape[1:], generator=generator_for(seed, "difficulty", level, index)).to(latents)
            for batch in torch.arange(len(latents)).split(BATCH):
                clean = latents[batch]
                noisy = point.alpha * clean + point.sigma * noise
                condition = labels[batch] if isinstance(labels, Tensor) else labels
                errors = prior.slope(noisy, point, condition) - prior.schedule.true_slope(clean, noise)
                check_finite(errors, "denoising loss", f"at level {level} (time {point.t:g})")
                losses[batch] += errors.cpu().double().square().flatten(1).mean(dim=1)
    return losses / (len(levels) * noises)
