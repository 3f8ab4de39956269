"""The gate on priors that are good, or bad in one way, by construction."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from d3hr import ImageData, Prior, load_images
from d3hr.data.codec import png_of_pixels, to_uint8
from d3hr.diagnostics.checks import Verdict
from d3hr.diagnostics.gate import VERDICT, PriorFigures, judged, known_verdict, measured, prior_gate, write_verdict
from d3hr.diagnostics.neighbours import Support
from d3hr.diagnostics.roundtrip import RoundTrip
from d3hr.errors import D3hrError
from d3hr.evaluation.students import Student
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.atomic import write_bytes, write_json
from d3hr.prior.class_matching import match_classes
from d3hr.prior.conditions import Condition
from d3hr.prior.families.dit import DiT
from d3hr.prior.networks import SCHEDULER_CONFIG
from d3hr.prior.schedules.schedule import Point
from d3hr.prior.schedules.variance_preserving import VariancePreserving
from tests.conftest import MakeFolder, untrained_prior

TRIP = RoundTrip(29.0, 31.0, 64)
NEAR = Support(0.9, 0.9, 1.0, 0.9)


class GaussianClasses(Prior):
    """The exact prior of classes that are Gaussian in pixels, its latents: x ~ N(m, S) in the principal axes of S, apart in each axis.

    With z = sqrt(a) x + sqrt(1 - a) e, the best prediction is e = sqrt(1 - a) (z - sqrt(a) m) / (a S + 1 - a), as in the tests' conftest.
    """

    image_size, latent_shape, device, rounding = 8, (3, 8, 8), torch.device("cpu"), 1e-7

    def __init__(self, of_classes: list[Tensor], class_names: tuple[str, ...]) -> None:
        self.denoiser = DiT(
            SimpleNamespace(config=SimpleNamespace(num_embeds_ada_norm=len(class_names), in_channels=3), out_channels=3), class_names
        )
        self.schedule = VariancePreserving.from_config(SCHEDULER_CONFIG)
        self.gaussians = []
        for images in of_classes:
            points = images.flatten(1).double()
            variances, axes = torch.linalg.eigh(points.T.cov())
            self.gaussians.append((points.mean(dim=0), variances.clamp(min=0), axes))

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents.clamp(-1, 1)

    def slope(self, latents: Tensor, point: Point, condition: Condition | Tensor, guidance_scale: float = 1.0) -> Tensor:
        assert isinstance(condition, Condition)
        mean, variances, axes = self.gaussians[int(condition.inputs["class_labels"])]
        apart = (latents.flatten(1).double() - point.alpha * mean) @ axes
        noise = point.sigma * apart / (point.alpha**2 * variances + point.sigma**2)
        return (noise @ axes.T).to(latents).view_as(latents)


@pytest.fixture(scope="module")
def held_out() -> ImageData:
    return load_images("digits", split="validation")


@pytest.fixture(scope="module")
def of_classes(digits: ImageData) -> list[Tensor]:
    return [torch.cat(list(batches)) for _, batches in digits]


Spoil = Callable[[list[Tensor]], list[Tensor]]


class Brightness(Student):
    """One feature, the mean pixel; the most likely class is 0 for dark images, 1 for grey and 2 for white ones."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(1, 3)
        self.classifier.weight.data, self.classifier.bias.data = torch.tensor([[-10.0], [0.0], [10.0]]), torch.tensor([0.0, 2.75, 0.0])

    def embed(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))[:, None]


def noise_like(images: Tensor) -> Tensor:
    return 2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 1


def gate(prior: Prior, images: ImageData, **options: Any) -> Verdict:
    return prior_gate(prior, images, conditioning=match_classes(images.class_names, prior.class_names, of="digits"), **options)


def test_an_exact_prior_passes(held_out: ImageData, of_classes: list[Tensor]) -> None:
    found = gate(GaussianClasses(of_classes, held_out.class_names), held_out)
    assert (found.signature, found.status) == ("weak prior", "ok"), found
    assert "--candidates" not in found.text


def test_an_untrained_prior_fails(held_out: ImageData, digits_prior: Prior) -> None:
    found = gate(digits_prior, held_out)
    assert found.status == "failure" and "blurs" in found.text and "--candidates real" in found.text
    assert "dB" in found.evidence and "precision" in found.evidence


def test_the_same_seed_says_the_same(held_out: ImageData, of_classes: list[Tensor]) -> None:
    prior = GaussianClasses(of_classes, held_out.class_names)
    assert gate(prior, held_out, per_class=4) == gate(prior, held_out, per_class=4) != gate(prior, held_out, per_class=4, seed=1)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda images: images[1:] + images[:1], "often shows another class"),
        (lambda images: [each.mean(dim=0).repeat(2, 1, 1, 1) for each in images], "all of one kind"),
        (lambda images: [noise_like(each) for each in images], "unlike any real image"),
    ],
    ids=["another class", "the class mean", "noise"],
)
def test_a_prior_of_something_else_fails(held_out: ImageData, of_classes: list[Tensor], spoil: Spoil, says: str) -> None:
    """It draws the next class, one picture of each class, or noise; what it encodes comes back unchanged from the autoencoder alone."""
    found = gate(GaussianClasses(spoil(of_classes), held_out.class_names), held_out)
    assert found.status == "failure" and says in found.text and "blurs" not in found.text


def test_a_teachers_answers_and_features_are_used(tmp_path: Path) -> None:
    """It tells three shades apart by their brightness, its one feature: drawn images are named as they were asked for; those of a prior
    that draws the next class are not. A pattern that does not change brightness keeps them near real images in its feature alone."""
    named, spread = ("dark", "grey", "white"), torch.linspace(-0.2, 0.2, 40).view(40, 1, 1, 1).expand(40, 3, 8, 8)
    shades = [spread + shade for shade in (-0.55, 0.0, 0.55)]
    pattern = 0.2 * (-1.0) ** torch.arange(8)
    for name, images in zip(named, shades, strict=True):
        (tmp_path / name).mkdir()
        for index, image in enumerate(to_uint8(images)):
            write_bytes(tmp_path / name / f"{index}.png", png_of_pixels(image))
    real = load_images(tmp_path)
    teacher = Teacher(Brightness().eval(), "brightness", named, 8, {})
    for drawn, right in ((shades, 1.0), (shades[1:] + shades[:1], 0.0)):
        prior = GaussianClasses([images + pattern for images in drawn], named)
        matches = match_classes(named, named, of="shades")
        found = measured(prior, real, conditioning=matches, teacher=teacher, per_class=20, seed=0)
        assert (found.named, found.named_real) == (right, 1.0)
        assert found.drawn.precision is not None and found.drawn.precision > 0.5


def test_too_few_images_leave_the_round_trip(image_folder: MakeFolder) -> None:
    """Three images a class give one to compare with, of 20 that are needed: the round trip decides; a class of one image does no harm."""
    images = load_images(image_folder({"ant": 3, "bee": 3, "cat": 1}))
    found = gate(untrained_prior(images.class_names), images)
    assert found.status == "failure" and found.evidence.startswith("round trip of 7 real images") and "precision" not in found.evidence


def test_numbers_that_are_not_finite_are_a_failure(held_out: ImageData, of_classes: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    prior = GaussianClasses(of_classes, held_out.class_names)
    monkeypatch.setattr(prior, "decode", lambda latents: latents * float("nan"))
    found = gate(prior, held_out)
    assert found.status == "failure" and "not finite" in found.text and "--candidates real" in found.text


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({}, "ok", "like them"),
        ({"trip": RoundTrip(19.9, 31.0, 64)}, "warning", "do not come back"),
        ({"trip": RoundTrip(14.9, 31.0, 64)}, "failure", "do not come back"),
        ({"trip": RoundTrip(19.0, 24.9, 64)}, "warning", "loses details"),
        ({"trip": RoundTrip(14.0, 19.9, 64)}, "failure", "blurs"),
        ({"drawn": Support(0.62, 0.9, 1.0, 0.9)}, "warning", "unlike any real"),
        ({"drawn": Support(0.31, 0.9, 1.0, 0.9)}, "failure", "unlike any real"),
        ({"drawn": Support(0.9, 0.62, 1.0, 0.9)}, "warning", "one kind"),
        ({"drawn": Support(0.9, 0.31, 1.0, 0.9)}, "failure", "one kind"),
        ({"drawn": Support(0.9, 0.9, 1.0, 0.62)}, "warning", "few of the real"),
        ({"drawn": Support(0.9, 0.9, 1.0, 0.31)}, "failure", "few of the real"),
        ({"named": 0.73}, "warning", "another class"),
        ({"named": 0.49}, "failure", "another class"),
        ({"named": 0.1, "named_real": 0.36}, "ok", "like them"),
        ({"trip": RoundTrip(), "drawn": Support(), "named": None}, "unknown", "too few"),
    ],
)
def test_either_side_of_every_limit(changes: dict[str, Any], status: str, says: str) -> None:
    """0.62 and 0.31 of 0.9 are 0.69 and 0.34, under 0.7 and 0.35. Guessing names a tenth of ten classes: 0.9 is 8/9 told apart, 0.73 is
    0.7 or 0.79 of that, 0.49 is 0.43 or 0.49 of it; a classifier that names 0.36 of real images tells 0.29 apart, too little to count."""
    usual: dict[str, Any] = {"trip": TRIP, "drawn": NEAR, "real": NEAR, "named": 0.9, "named_real": 0.9, "classes": 10}
    found = judged(PriorFigures(**{**usual, **changes}))
    assert found.status == status and says in found.text, found
    assert ("--candidates real" in found.text) == (status in ("warning", "failure"))


def test_what_is_known_of_a_prior_without_drawing(tmp_path: Path) -> None:
    """The verdict of its fit; else what the error of its autoencoder says; nothing of a prior that is no folder, or was not fitted here."""
    assert known_verdict("facebook/DiT-XL-2-256") is None and known_verdict(str(tmp_path)) is None
    write_json(tmp_path / "fit.json", {"reconstruction_psnr_db": 17.0})
    old = known_verdict(str(tmp_path))
    assert old is not None and old.status == "failure" and "17.0 dB" in old.evidence
    verdict = Verdict("weak prior", "warning", "It falls short.", "on split val: precision 0.50 (other real images 0.90)")
    write_verdict(tmp_path, verdict)
    assert known_verdict(str(tmp_path)) == verdict
    (tmp_path / VERDICT).write_text("{}")
    with pytest.raises(D3hrError, match=r"verdict\.json"):
        known_verdict(str(tmp_path))
