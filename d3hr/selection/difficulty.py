"""How difficult each image of a class is for the prior: by how well it predicts noise that is added to it.

Legend: N images, C h w latent axes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from d3hr.distillation.ddim import NoisePredictor, check_finite
from d3hr.distillation.settings import USUAL_STEPS
from d3hr.seeds import generator_for

BATCH = 64
"""Images in one network call."""


@torch.no_grad()
def denoising_loss(
    prior: NoisePredictor,
    latents: Tensor,
    labels: Tensor,
    *,
    levels: Sequence[int],
    noises: int,
    seed: int,
    steps: int = USUAL_STEPS,
) -> Tensor:
    """Return the mean squared error with which a prior, given the class, predicts noise in each image: float64 [N] on the CPU.

    At each level every image gets the same few noises, so that images differ by themselves alone. The mean is over levels, noises and
    dimensions of |eps - e|^2 at sqrt(a) z + sqrt(1 - a) e, the loss that a prior is trained on (DDPM, arXiv 2006.11239, eq. 14). It is the
    order of difficulty of D2C. One network call for each image, level and noise, without guidance.

    Args:
        prior: the diffusion model.
        latents: clean latents [N, C, h, w].
        labels: conditioning ids [N].
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
        timestep, alpha = prior.schedule.path(level, steps)[-1]
        for index in range(noises):
            noise = torch.randn(latents.shape[1:], generator=generator_for(seed, "difficulty", level, index)).to(latents)
            for batch in torch.arange(len(latents)).split(BATCH):
                noisy = alpha**0.5 * latents[batch] + (1 - alpha) ** 0.5 * noise
                errors = prior.predict_noise(noisy, timestep, labels[batch]) - noise
                check_finite(errors, "denoising loss", f"at level {level} (timestep {timestep})")
                losses[batch] += errors.cpu().double().square().flatten(1).mean(dim=1)
    return losses / (len(levels) * noises)
