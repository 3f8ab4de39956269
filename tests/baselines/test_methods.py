from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from d3hr import ClassGaussian, ImageData, Prior, distill, load_images
from d3hr.baselines.materials import Materials
from d3hr.baselines.methods import METHODS, Job, method_named
from d3hr.errors import ClassMismatch, D3hrError, DataError, SettingsError
from d3hr.evaluation.students import Student
from d3hr.evaluation.teachers import Teacher
from d3hr.storage import to_uint8
from tests.conftest import MakeFolder, tree

SMALL: dict[str, Any] = {"preset": "gentle", "steps": 4, "level": 2}
TAKEN = {"d3hr": SMALL, "forward_noise": SMALL, "latent_gaussian": {"preset": "gentle", "steps": 4}, "prior_only": {"steps": 4}}
TAKEN |= {"prototypes": SMALL, "patches": {"crops": 2}, "herding": {"space": "latent"}, "k_center": {"space": "teacher"}}


class Brightness(Student):
    """Features: the mean of each channel. Class 1 is the likelier the brighter an image is, class 0 the darker."""

    def __init__(self, classes: int = 10, scale: float = 1.0) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        with torch.no_grad():
            self.classifier.weight[1] += scale
            self.classifier.weight[0] -= scale

    def embed(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def few() -> ImageData:
    return load_images("digits", split="validation")


@pytest.fixture
def materials(few: ImageData, digits_prior: Prior) -> Materials:
    teacher = Teacher(Brightness().eval(), "brightness", few.class_names, 8, {})
    return Materials(few, 8, prior=digits_prior, teacher=teacher)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_a_set_and_repeats_it(name: str, materials: Materials, tmp_path: Path) -> None:
    """Two images of ten classes under the method's own name; the same seed gives the same bytes, from what is shared and without it."""
    method, options = METHODS[name], TAKEN.get(name, {})
    method.check(name, materials, options)
    made = method.run(Job(materials, tmp_path / "a", 2, 5, tmp_path / "shared"), **options)
    assert (made.manifest.method, made.manifest.ipc, made.images.shape) == (name, 2, (20, 3, 8, 8))
    again = method.run(Job(materials, tmp_path / "b", 2, 5, tmp_path / "shared"), **options)
    alone = method.run(Job(materials, tmp_path / "c", 2, 5, tmp_path / "other"), **options)
    assert tree(again.path / "train") == tree(alone.path / "train") == tree(made.path / "train")
    assert method.summary


def test_the_method_under_test_is_its_own_pipeline(materials: Materials, digits_prior: Prior, tmp_path: Path) -> None:
    """d3hr through the table gives the images of distill; sets that differ in the draw alone share their statistics."""
    for seed, strategy in [(0, "exact"), (1, "random")]:
        METHODS["d3hr"].run(Job(materials, tmp_path / f"{seed}", 2, seed, tmp_path / "shared"), **{**SMALL, "strategy": strategy})
    plain = distill(materials.images, digits_prior, tmp_path / "plain", ipc=2, **SMALL)
    assert tree(tmp_path / "0" / "train") == tree(plain.path / "train")
    assert len(list((tmp_path / "shared").iterdir())) == 1


def test_forward_noise_has_the_moments_of_noised_latents(materials: Materials, digits_prior: Prior, tmp_path: Path) -> None:
    """At signal variance a, latents of mean m and variance v have mean sqrt(a) m and variance a v + 1 - a; of 24 images a class, over
    640 dimensions, the means of both agree within 0.06 (four standard errors of the mean are 4 / sqrt(24 * 640) = 0.03)."""
    made = METHODS["forward_noise"].run(Job(materials, tmp_path / "set", 2, 0, tmp_path / "shared"), **{**SMALL, "level": 3})
    a = digits_prior.schedule.path(3, 4)[-1][1]
    means, variances = [], []
    for name in materials.images.class_names:
        clean = ClassGaussian.empty(64).update(materials.features(name, "latent", tmp_path / "shared"))
        means.append((made.statistics[name].mean - a**0.5 * clean.mean).mean())
        variances.append((made.statistics[name].std.square() - (a * clean.std.square() + 1 - a)).mean())
    assert abs(float(torch.stack(means).mean())) < 0.06
    assert abs(float(torch.stack(variances).mean())) < 0.06


def test_a_latent_gaussian_is_decoded_as_it_is(materials: Materials, digits_prior: Prior, tmp_path: Path) -> None:
    """Statistics are those of the clean latents, and an image is what the autoencoder makes of a drawn group."""
    from d3hr import select_groups

    options = {**TAKEN["latent_gaussian"], "strategy": "random"}
    made = METHODS["latent_gaussian"].run(Job(materials, tmp_path / "set", 2, 7, tmp_path / "shared"), **options)
    clean = ClassGaussian.empty(64).update(materials.features("3", "latent", tmp_path / "shared"))
    torch.testing.assert_close(made.statistics["3"].mean, clean.mean, atol=1e-5, rtol=1e-5)
    group = select_groups({"3": made.statistics["3"]}, 2, strategy="random", seed=7)["3"]
    decoded = to_uint8(digits_prior.decode(group.float().view(-1, *digits_prior.latent_shape)))
    assert (made.of_class("3").int() - decoded.int()).abs().max() <= 1


def test_prototypes_without_noise_are_decoded_centres(materials: Materials, digits_prior: Prior, tmp_path: Path) -> None:
    """One cluster has the class's mean latent as its centre; at level 0 no noise is added and nothing is denoised."""
    made = METHODS["prototypes"].run(Job(materials, tmp_path / "set", 1, 0, tmp_path / "shared"), steps=4, level=0)
    mean = materials.features("3", "latent", tmp_path / "shared").mean(dim=0)
    decoded = to_uint8(digits_prior.decode(mean.view(1, *digits_prior.latent_shape)))
    assert (made.of_class("3").int() - decoded.int()).abs().max() <= 1


def test_patches_are_what_the_teacher_finds_realistic(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Images of one grey level each, 0 to 240: the four brightest make the bright class's tiles, the four darkest the dark class's."""
    from PIL import Image

    for name in ("bright", "dark"):
        folder = tmp_path / "grey" / name
        folder.mkdir(parents=True)
        for level in range(0, 241, 30):
            Image.new("RGB", (8, 8), (level, level, level)).save(folder / f"{level}.png")
    images = load_images(tmp_path / "grey")
    teacher = Teacher(Brightness(2).eval(), "brightness", ("dark", "bright"), 8, {})
    made = METHODS["patches"].run(Job(Materials(images, 8, teacher=teacher), tmp_path / "set", 1, 0, tmp_path / "shared"))
    assert sorted(made.of_class("bright")[0, 0].unique().tolist()) == [150, 180, 210, 240]
    assert sorted(made.of_class("dark")[0, 0].unique().tolist()) == [0, 30, 60, 90]


def test_chosen_images_are_real_and_different(materials: Materials, tmp_path: Path) -> None:
    for name in ("herding", "k_center", "k_means"):
        made = METHODS[name].run(Job(materials, tmp_path / name, 3, 0, tmp_path / "shared"))
        real = [image.numpy().tobytes() for batch in materials.images.batches("4") for image in to_uint8(batch)]
        chosen = {image.numpy().tobytes() for image in made.of_class("4")}
        assert len(chosen) == 3
        assert chosen <= set(real)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("herding", {"spaces": "pixel"}, "Method herding has no such setting"),
        ("herding", {"space": "colour"}, "unknown space"),
        ("herding", {"space": "latent"}, "needs a prior"),
        ("patches", {}, "needs a teacher"),
        ("d3hr", {}, "needs a prior"),
        ("latent_gaussian", {"level": 3}, "no such setting"),
        ("random_real", {"ipc": 3}, "its settings are: none"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(name: str, options: dict[str, Any], words: str, few: ImageData) -> None:
    with pytest.raises(SettingsError, match=words):
        METHODS[name].check(name, Materials(few, 8), options)


def test_settings_of_a_distillation_are_checked(materials: Materials) -> None:
    with pytest.raises(SettingsError, match=r"Method d3hr: .*preset"):
        METHODS["d3hr"].check("d3hr", materials, {"preset": "fast"})
    with pytest.raises(SettingsError, match="Unknown method"):
        method_named("magic")


def test_patches_that_cannot_be_cut_are_refused(materials: Materials, tmp_path: Path) -> None:
    for options, error in [({"factor": 3}, SettingsError), ({"crops": 0}, SettingsError), ({"candidates": 1, "crops": 1}, DataError)]:
        with pytest.raises(error):
            METHODS["patches"].run(Job(materials, tmp_path / "set", 2, 0, tmp_path), **options)
    other = Materials(materials.images, 8, teacher=Teacher(Brightness(2), "brightness", ("a", "b"), 8, {}))
    with pytest.raises(ClassMismatch):
        METHODS["patches"].run(Job(other, tmp_path / "set", 2, 0, tmp_path))
    assert issubclass(ClassMismatch, D3hrError)
