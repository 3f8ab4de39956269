"""Measures on this machine what a plan for other machines is made of: operations of a device, and what one core takes for one thing.

Legend: N images of a class, K to choose, D dimensions of a latent.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image

from d3hr.data.codec import examine, open_upright, png_of, to_pixels
from d3hr.distillation.ddim import invert
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.mixture import ClassMixture
from d3hr.distillation.pool import draw_block
from d3hr.distillation.settings import DistillSettings
from d3hr.execution.memory import device_name, total_bytes
from d3hr.planning.counting import PriorNeeds
from d3hr.planning.machines import Machines
from d3hr.planning.measure import measure, seconds_of
from d3hr.planning.probe import MEMORY_SHARE
from d3hr.planning.shapes import PriorShape
from d3hr.planning.stand_ins import stand_ins
from d3hr.selection.choosing import choose_group
from d3hr.selection.features import SMALL_SIDE
from d3hr.selection.spaces import principal_components

PHOTO = (500, 375)
"""Width and height of the picture that is decoded, in pixels: the most usual of ImageNet's."""
CHOSEN_FROM = 1000
"""Images among which a group is chosen to measure it."""
SMALL_FEATURES = 3 * SMALL_SIDE**2
"""Features of an image in the space ``pixel``."""
_CPU = torch.device("cpu")
_REPEATS = 5


@dataclass(frozen=True)
class Rates:
    """What the parts of the work take.

    Attributes:
        device: what ``device_flops`` was measured on; or that it was given.
        device_flops: operations a second of networks on a device.
        look: seconds of a core to hash and decode an image file, as everything is looked at first.
        decode: seconds of a core to decode and resize an image file.
        noise: normal numbers a second that a core draws.
        merge: seconds to receive the statistics of a chunk and merge them.
        write: seconds to compress and write an image.
        choose: seconds of a core to choose a group, per real image that is compared; 0 where none is chosen.
    """

    device: str
    device_flops: float
    look: float
    decode: float
    noise: float
    merge: float
    write: float
    choose: float


def measured_rates(shape: PriorShape, needs: PriorNeeds, settings: DistillSettings, machines: Machines) -> Rates:
    """Measure all rates in some seconds; that of a device only if it was not given."""
    if machines.device_flops is None:
        device, flops = _device_flops(shape, needs, settings)
    else:
        device, flops = "given", machines.device_flops
    blob = photo()
    larger = machines.image_bytes / len(blob)  # decoding takes about as long as the file is large
    picture = to_pixels(open_upright(blob), shape.image_size)
    return Rates(
        device=device,
        device_flops=flops,
        look=larger * _least(lambda: (hashlib.sha256(blob), examine(blob))),
        decode=larger * _least(lambda: to_pixels(open_upright(blob, least=shape.image_size), shape.image_size)),
        noise=_noise(settings, shape.dimensions),
        merge=_merge(shape.dimensions, settings),
        write=_least(lambda: png_of(Image.fromarray(picture))),
        choose=_choose(settings),
    )


@cache
def photo() -> bytes:
    """Return a JPEG of a picture that compresses like a photo: shapes of all sizes, and noise."""
    rng, (width, height) = np.random.default_rng(0), PHOTO
    picture = np.zeros((height, width, 3))
    for size, strength in ((4, 60), (16, 40), (64, 25), (128, 16)):
        coarse = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        picture += strength / 128 * (np.asarray(coarse.resize(PHOTO, Image.Resampling.BICUBIC), dtype=np.float64) - 128)
    picture += rng.normal(128, 8, picture.shape)
    file = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _least(run: Callable[[], object]) -> float:
    """Return the least seconds of some runs, after one that is not counted."""
    run()
    return min(seconds_of(run, _CPU) for _ in range(_REPEATS))


def _device_flops(shape: PriorShape, needs: PriorNeeds, settings: DistillSettings) -> tuple[str, float]:
    """Return the name of the device here, and the operations a second of the network in batches as large as they will be."""
    standing = stand_ins(shape)
    network = standing.priors[0]
    largest = needs.network.largest_batch(MEMORY_SHARE * total_bytes(network.device))
    noise = torch.randn(min(settings.batch_size, largest), *network.latent_shape, device=network.device)
    condition = network.denoiser.example

    timing = standing.timing(
        lambda prior: measure(
            lambda n: invert(prior, noise[:n], condition, level=1, steps=settings.steps, guidance_scale=1.0),
            [len(noise)],
            prior.device,
        )
    )
    size, seconds = max(timing.seconds.items())
    return device_name(network.device), size * needs.network.flops / seconds


def _noise(settings: DistillSettings, dimensions: int) -> float:
    values = draw_block(0, settings, dimensions)
    return values.numel() / _least(lambda: draw_block(0, settings, dimensions, values))


def _merge(dimensions: int, settings: DistillSettings) -> float:
    """Return the seconds to copy the statistics of a chunk, as it arrives, and to merge them into those of a class."""
    rank = min(settings.rank, dimensions)
    latents = torch.randn(max(2, 2 * rank), dimensions, generator=torch.Generator().manual_seed(0))
    mixture = ClassMixture((ClassGaussian.empty(dimensions, rank).update(latents),))
    return _least(lambda: mixture.merge(deepcopy(mixture)))


def _choose(settings: DistillSettings) -> float:
    if not settings.real_images:
        return 0.0
    features = torch.randn(CHOSEN_FROM, SMALL_FEATURES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def choose() -> None:
        points = principal_components(features, settings.components) if settings.components else features
        choose_group(points, settings.real_images * settings.pack**2, settings, "class")

    return seconds_of(choose, _CPU) / CHOSEN_FROM
