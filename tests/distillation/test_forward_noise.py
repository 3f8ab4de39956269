from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr import ImageData, Prior, distill, expand
from d3hr.data.codec import to_uint8
from d3hr.distillation.ddim import forward_noise
from d3hr.distillation.presets import distill_settings
from d3hr.errors import SettingsError
from d3hr.prior.networks import SCHEDULER_CONFIG
from d3hr.prior.schedules.variance_preserving import VariancePreserving

QUICK: dict[str, Any] = {"steps": 6, "level": 3, "num_candidates": 20}


def test_moments_are_those_of_the_forward_process() -> None:
    """Latents of mean m and variance v get mean sqrt(a) m and variance a v + 1 - a. Of 20,000 latents the mean errs by less than 5 standard
    errors, 5 / sqrt(20000) = 0.035 times the std, the variance by less than 5 sqrt(2 / 20000) = 0.05 of itself."""
    schedule = VariancePreserving.from_config(SCHEDULER_CONFIG)
    generator = torch.Generator().manual_seed(0)
    m, v = torch.tensor([-2.0, 0.0, 3.0, 1.0]), torch.tensor([0.1, 4.0, 1.0, 0.5])
    clean = m + v.sqrt() * torch.randn(20_000, 4, generator=generator)
    noisy = forward_noise(schedule, clean.view(-1, 4, 1, 1), level=13, steps=50, generator=generator).flatten(1)
    a = float(schedule.alphas_cumprod[260])  # level 13 of 50 steps of 1000
    variance = a * v + 1 - a
    assert ((noisy.mean(dim=0) - a**0.5 * m).abs() < 0.035 * variance.sqrt()).all()
    assert ((noisy.var(dim=0) / variance - 1).abs() < 0.05).all()


def test_noise_does_not_depend_on_batches() -> None:
    """Nine latents at once, or in parts of 4, 4 and 1: the same values to the bit."""
    schedule = VariancePreserving.from_config(SCHEDULER_CONFIG)
    clean = torch.zeros(9, 3, 2, 2)
    whole = forward_noise(schedule, clean, level=3, steps=10, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    parts = torch.cat([forward_noise(schedule, part, level=3, steps=10, generator=generator) for part in clean.split(4)])
    assert torch.equal(whole, parts)
    assert len(whole.flatten(1).unique(dim=0)) == 9


def test_level_0_is_clean() -> None:
    schedule = VariancePreserving.from_config(SCHEDULER_CONFIG)
    clean = torch.randn(3, 4, 2, 2)
    assert forward_noise(schedule, clean, level=0, steps=10, generator=torch.Generator()) is clean
    with pytest.raises(SettingsError, match="not on the grid"):
        forward_noise(schedule, clean, level=10, steps=10, generator=torch.Generator())


@pytest.mark.slow
def test_distil_with_forward_noise_measures_noised_latents(digits: ImageData, digits_prior: Prior, tmp_path: Path) -> None:
    """The statistics relate to those of the clean latents z by mean sqrt(a) m + sqrt(1-a) e-bar; as e is drawn apart from z, the mean over
    the 64 dimensions and 143 images of the excess errs by less than 5 sqrt((1-a) / (64 * 143)). Batches do not matter, and the
    manifest names the method."""
    noised = distill(digits, digits_prior, tmp_path / "noised", store="statistics", forward_process="forward_noise", **QUICK)
    clean = distill(digits, digits_prior, tmp_path / "clean", store="statistics", level=0)
    assert (noised.manifest.method, clean.manifest.method) == ("forward_noise", "latent_gaussian")
    assert "inversion_guidance" not in noised.manifest.settings
    a = digits_prior.schedule.points(6)[3].alpha ** 2
    for name in ("0", "7"):
        gap = noised.statistics[name].mean - a**0.5 * clean.statistics[name].mean
        count = noised.statistics[name].count
        assert gap.std() == pytest.approx(((1 - a) / count) ** 0.5, rel=0.4)
        assert abs(float(gap.mean())) < 5 * ((1 - a) / (64 * count)) ** 0.5
        variance = a * clean.statistics[name].std ** 2 + 1 - a
        assert float((noised.statistics[name].std ** 2 / variance).mean()) == pytest.approx(1, abs=5 * (2 / (64 * count)) ** 0.5)
    batched = distill(
        digits, digits_prior, tmp_path / "batched", store="statistics", forward_process="forward_noise", batch_size=50, **QUICK
    )
    torch.testing.assert_close(batched.statistics["7"].mean, noised.statistics["7"].mean, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_level_0_decodes_the_group(digits: ImageData, digits_prior: Prior, tmp_path: Path) -> None:
    """No inversion, no denoising: the images are the decoded group of the Gaussian of the encoded images, and expand repeats them."""
    from d3hr.distillation.grouping import draw_group

    distilled = distill(digits, digits_prior, tmp_path / "set", ipc=3, level=0, strategy="random")
    group = draw_group("4", distilled.statistics["4"], distill_settings("paper", ipc=3, level=0, strategy="random"))
    images = digits_prior.decode(group.float().view(3, *digits_prior.latent_shape))
    assert (distilled.of_class("4").int() - to_uint8(images).int()).abs().max() <= 1
    encoded = digits_prior.encode(torch.cat(list(digits.batches("4")))).flatten(1).double()
    torch.testing.assert_close(distilled.statistics["4"].mean, encoded.mean(dim=0), rtol=1e-5, atol=1e-6)
    assert torch.equal(expand(distilled, digits_prior, tmp_path / "again", ipc=3).images, distilled.images)


@pytest.mark.slow
def test_expand_takes_what_the_statistics_do_not_depend_on(digits: ImageData, digits_prior: Prior, tmp_path: Path) -> None:
    """Other grouping, guidance or level of denoising gives what distilling with them would have given; other statistics are refused."""
    kept = distill(digits, digits_prior, tmp_path / "kept", store="statistics", **QUICK)
    changes: dict[str, Any] = {"strategy": "exact", "denoising_guidance": 1.0, "denoising_level": 2}
    expanded = expand(kept, digits_prior, tmp_path / "expanded", ipc=2, **changes)
    direct: dict[str, Any] = {"steps": 6, "statistics_level": 3, "num_candidates": 20, **changes}
    assert torch.equal(expanded.images, distill(digits, digits_prior, tmp_path / "direct", ipc=2, **direct).images)
    assert (tmp_path / "expanded" / "run.json").read_text() == (tmp_path / "direct" / "run.json").read_text()
    refusals: list[tuple[str, dict[str, Any]]] = [
        ("--steps", {"steps": 8}),
        ("--forward-process", {"forward_process": "forward_noise"}),
        ("both levels", {"denoising_level": 0}),
    ]
    for words, wrong in refusals:
        with pytest.raises(SettingsError, match=words):
            expand(kept, digits_prior, tmp_path / "other", ipc=2, **wrong)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("--statistics-level", {"level": -1}),
        ("both levels are 0", {"statistics_level": 0}),
        ("both levels are 0", {"denoising_level": 0}),
        ("above 0", {"level": 0, "forward_process": "forward_noise"}),
        ("--inversion-guidance has no effect", {"inversion_guidance": 2.0, "forward_process": "forward_noise"}),
        ("--solver has no effect", {"solver": "ddim", "level": 0}),
        ("--denoising-guidance has no effect", {"denoising_guidance": 2.0, "level": 0}),
        ("--level auto measures inverted", {"level": "auto", "forward_process": "forward_noise"}),
        ("--forward-process", {"forward_process": "magic"}),
        ("--inversion-stride has no effect", {"inversion_stride": 2, "level": 0}),
        ("level by level", {"inversion_stride": 2, "solver": "fixed_point"}),
    ],
)
def test_nonsense_is_refused(words: str, changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=words):
        distill_settings("paper", **changes)
