"""What a CUDA device computes is what the CPU computes, to rounding."""

from pathlib import Path

import pytest
import torch

from d3hr import Prior, distill, load_images
from tests.conftest import MakeFolder, untrained_prior


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_device_measures_the_same_statistics(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Inversion of 6 steps in float32: means and spreads agree within 1e-2, which leaves room for TF32 in convolutions."""
    images = load_images(image_folder({"ant": 20, "bee": 12}))
    untrained_prior(("ant", "bee")).save_pretrained(tmp_path / "prior")
    on_cpu, on_device = (
        distill(
            images,
            Prior.from_pretrained(tmp_path / "prior", device=device),
            tmp_path / device,
            store="statistics",
            steps=6,
            level=3,
            inversion_guidance=1.0,
        )
        for device in ("cpu", "cuda")
    )
    for name in ("ant", "bee"):
        torch.testing.assert_close(on_device.statistics[name].mean, on_cpu.statistics[name].mean, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(on_device.statistics[name].std, on_cpu.statistics[name].std, rtol=1e-2, atol=1e-2)
