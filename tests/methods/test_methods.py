from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr import DistilledSet, ImageData, denoise, distill, load_images
from d3hr.data.codec import to_uint8
from d3hr.distillation.settings import ChoiceSettings, DistillSettings, Space
from d3hr.errors import ClassMismatch, DataError, NumericalError, SettingsError
from d3hr.evaluation.students import new_student
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.atomic import write_bytes
from d3hr.methods.features import class_features
from d3hr.methods.gaussians import D3hrSettings
from d3hr.methods.job import Job, MethodInputs
from d3hr.methods.patches import PatchSettings
from d3hr.methods.registry import METHODS, method_named
from d3hr.prior.model import Prior
from d3hr.progress import SILENT
from tests.conftest import MakeFolder, tree, untrained_prior

FAST: dict[str, Any] = {"steps": 6, "level": 3, "num_candidates": 20}
"""Settings that make the methods quick, given to those that take them."""
OF_REAL: dict[str, dict[str, Any]] = {"chosen": {}, "real_start": {"steps": 6, "denoising_level": 2}}
"""Those of methods that draw nothing."""


@pytest.fixture
def inputs(image_folder: MakeFolder) -> MethodInputs:
    """Three classes of 6, 5 and 4 random images, a prior that has them in another order, and a teacher."""
    images = load_images(image_folder({"ant": 6, "bee": 5, "cat": 4}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = Teacher(new_student("convnet2", 3, 8).eval(), "convnet2", ("cat", "ant", "bee"), 8, {"accuracy": 0.3})
    return MethodInputs(images, 8, untrained_prior(("cat", "ant", "dog", "bee")), teacher)


Make = Callable[..., DistilledSet]


@pytest.fixture
def make(inputs: MethodInputs, tmp_path: Path) -> Make:
    """Make a set by a method, fast, into a folder of a name."""

    def made(name: str, folder: str, *, ipc: int = 2, seed: int = 0, shared: str = "shared", **settings: Any) -> DistilledSet:
        method = METHODS[name]
        given = OF_REAL.get(name, {key: value for key, value in FAST.items() if key in method.options}) | settings
        return method.make(inputs, tmp_path / folder, ipc=ipc, seed=seed, shared=tmp_path / shared, **given)

    return made


@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_a_set_and_repeats_it(make: Make, tmp_path: Path, name: str) -> None:
    """A loadable set of its own name; the same call returns it as it stands; elsewhere, with nothing shared, it gives the same bytes."""
    first = make(name, "first")
    assert (first.manifest.method, first.manifest.ipc, first.manifest.image_size) == (name, 2, 8)
    assert DistilledSet.load(tmp_path / "first").images.shape == (6, 3, 8, 8)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert make(name, "first").images.equal(first.images)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    make(name, "again", shared="elsewhere")
    assert tree(tmp_path / "again") == tree(tmp_path / "first")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_where_it_was_stopped(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Stopped when its second class is to be written, the next run keeps the others, in whichever order threads write them, and ends with
    the same bytes."""
    from d3hr.sets import writer

    make(name, "whole")
    written: list[str] = []

    def write(path: Path, content: bytes) -> None:
        if path.name == "00000.png":
            written.append(of := path.parent.name.removeprefix(".").removesuffix(".part"))
            if of == "bee" and written.count("bee") == 1:
                raise KeyboardInterrupt
        write_bytes(path, content)

    monkeypatch.setattr(writer, "write_bytes", write)
    with pytest.raises(KeyboardInterrupt):
        make(name, "stopped")
    make(name, "stopped")
    assert sorted(written) == ["ant", "bee", "bee", "cat"]
    assert tree(tmp_path / "stopped") == tree(tmp_path / "whole")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_again_what_it_shares(make: Make, tmp_path: Path, name: str) -> None:
    """A set of another IPC and one of the same add nothing to ``shared`` and change nothing in it."""
    make(name, "two")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*") if path.is_file()}
    make(name, "three", ipc=3)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["d3hr", "random_real", "prior_only", "forward_noise", "latent_gaussian", "prototypes", "patches"])
def test_another_seed_gives_another_set(make: Make, name: str) -> None:
    assert not make(name, "first").images.equal(make(name, "second", seed=1).images)


@pytest.mark.parametrize("name", ["herding", "k_center"])
def test_greedy_choices_depend_on_no_seed(make: Make, tmp_path: Path, name: str) -> None:
    """The set of another seed is the same, down to its key."""
    make(name, "first")
    make(name, "second", seed=1)
    assert tree(tmp_path / "first") == tree(tmp_path / "second")


@pytest.mark.parametrize("name", ["herding", "k_center", "k_means"])
@pytest.mark.parametrize("space", ["pixel", "latent", "teacher"])
def test_chosen_images_are_real_and_different(make: Make, inputs: MethodInputs, name: str, space: str) -> None:
    made = make(name, "set", ipc=4, space=space)
    for label in ("ant", "bee", "cat"):
        real = {image.numpy().tobytes() for batch in inputs.images.batches(label) for image in to_uint8(batch)}
        assert len({image.numpy().tobytes() for image in made.of_class(label)} & real) == 4


def test_herding_on_pixels_of_known_order(tmp_path: Path) -> None:
    """Images of the shades 0, 10, 20, 30, 100 lie on a line: the order is that of the values 0, 1, 2, 3, 10 (see test_rules)."""
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for shade in (0, 10, 20, 30, 100):
            Image.new("RGB", (8, 8), (shade, shade, shade)).save(tmp_path / "images" / name / f"{shade:03d}.png")
    inputs = MethodInputs(load_images(tmp_path / "images"), 8)
    made = METHODS["herding"].make(inputs, tmp_path / "set", ipc=4, shared=tmp_path / "shared")
    assert made.of_class("b")[:, 0, 0, 0].tolist() == [30, 20, 10, 100]
    far = METHODS["k_center"].make(inputs, tmp_path / "far", ipc=3, shared=tmp_path / "shared")
    assert far.of_class("a")[:, 0, 0, 0].tolist() == [30, 100, 0]
    assert not (tmp_path / "shared").exists()


def test_features_are_what_the_networks_give(inputs: MethodInputs, tmp_path: Path) -> None:
    """Latents of the prior and features of the teacher, of each image in its place, also when they are read back."""
    job = Job("herding", inputs, tmp_path / "set", 2, 0, tmp_path / "shared", SILENT)
    pixels = torch.cat(list(inputs.images.batches("bee")))
    assert inputs.prior and inputs.teacher
    expected: dict[Space, torch.Tensor] = {
        "pixel": pixels.flatten(1),
        "latent": inputs.prior.encode(pixels).flatten(1),
        "teacher": inputs.teacher.embed(pixels).flatten(1),
    }
    for space, values in expected.items():
        for _ in range(2):
            torch.testing.assert_close(class_features(job, space, "bee"), values)


def test_features_that_are_not_finite_stop_the_run(make: Make, inputs: MethodInputs) -> None:
    """NaN would make a choice of anything."""
    assert inputs.prior is not None
    next(inputs.prior.vae.parameters()).fill_(torch.nan)
    with pytest.raises(NumericalError, match="Class 'ant': The encoding"):
        make("herding", "set", space="latent")


def test_d3hr_is_what_distil_makes(make: Make, inputs: MethodInputs, tmp_path: Path) -> None:
    """Through the interface: the bytes of d3hr.distill, with one inversion for settings that differ in grouping or denoising only."""
    made = make("d3hr", "first", seed=3, strategy="exact", inversion_guidance=1.5)
    assert inputs.prior is not None
    settings = {**FAST, "strategy": "exact", "inversion_guidance": 1.5}
    direct = distill(inputs.images, inputs.prior, tmp_path / "direct", ipc=2, seed=3, **settings)
    assert tree(direct.path) == tree(made.path)
    make("d3hr", "second", strategy="random", inversion_guidance=1.5, denoising_guidance=1.0)
    assert len(list((tmp_path / "shared").glob("statistics-*"))) == 1
    make("d3hr", "third", inversion_guidance=2.0)
    assert len(list((tmp_path / "shared").glob("statistics-*"))) == 2


@pytest.mark.parametrize("name", ["d3hr", "forward_noise", "latent_gaussian"])
def test_statistics_may_come_from_a_sample(make: Make, name: str) -> None:
    """Conditions are equal only where what is exchanged for inversion sees as many images as inversion does."""
    made = make(name, "set", max_images_per_class=3)
    assert {gaussian.count for gaussian in made.statistics.values()} == {3}


@pytest.mark.parametrize(("most", "measured"), [(3, 2), (6, 1)])
def test_statistics_are_shared_where_no_sample_is_drawn(make: Make, tmp_path: Path, most: int, measured: int) -> None:
    """Of classes of 6, 5 and 4 images: three of each are another sample for another seed, six are all of them."""
    sets = [make("latent_gaussian", f"set {seed}", seed=seed, max_images_per_class=most) for seed in (0, 1)]
    assert len(list((tmp_path / "shared").glob("statistics-*"))) == measured
    assert sets[0].statistics["ant"].mean.equal(sets[1].statistics["ant"].mean) == (measured == 1)


@pytest.mark.slow
def test_d3hr_with_the_level_left_open(digits: ImageData, digits_prior: Prior, tmp_path: Path) -> None:
    """The level is chosen once, with the statistics, and both levels of the set are it."""
    inputs = MethodInputs(digits, 8, digits_prior)
    settings: dict[str, Any] = {"level": "auto", "steps": 4, "strategy": "random", "inversion_guidance": 1.0}
    made = METHODS["d3hr"].make(inputs, tmp_path / "set", ipc=1, shared=tmp_path / "shared", **settings)
    direct = distill(digits, digits_prior, tmp_path / "direct", ipc=1, **settings)
    assert made.manifest.settings == direct.manifest.settings
    assert made.images.equal(direct.images)


def test_prototypes_at_level_0_are_the_decoded_latents(make: Make, inputs: MethodInputs) -> None:
    """With as many centres as images each centre is a latent, and without noise the images are those latents decoded."""
    made = make("prototypes", "set", ipc=4, level=0)
    prior = inputs.prior
    assert prior is not None
    decoded = to_uint8(prior.decode(prior.encode(torch.cat(list(inputs.images.batches("cat")))))).flatten(1).int()
    drawn = made.of_class("cat").flatten(1).int()
    gaps = (drawn[:, None] - decoded[None]).abs().amax(dim=-1)
    assert gaps.amin(dim=0).max() <= 1
    assert gaps.amin(dim=1).max() <= 1


def test_prototypes_are_noised_and_denoised_as_their_class(make: Make, inputs: MethodInputs) -> None:
    """One centre is the mean latent m: the image is what denoising sqrt(a) m + sqrt(1-a) e with the class's own id gives."""
    from d3hr.seeds import generator_for

    made = make("prototypes", "set", ipc=1, seed=2, denoising_guidance=20.0)
    prior = inputs.prior
    assert prior is not None
    mean = prior.encode(torch.cat(list(inputs.images.batches("bee")))).mean(dim=0, keepdim=True)
    a = prior.schedule.points(6)[3].alpha ** 2
    noise = torch.randn(prior.latent_shape, generator=generator_for(2, "prototype noise", "bee"))
    clean = denoise(prior, a**0.5 * mean + (1 - a) ** 0.5 * noise, torch.tensor([3]), level=3, steps=6, guidance_scale=20.0)
    assert (made.of_class("bee").int() - to_uint8(prior.decode(clean)).int()).abs().max() <= 1


def test_options_are_those_of_distillation() -> None:
    """d3hr takes every setting of a distillation but those that the interface gives and the one that makes it another method."""
    others = {"ipc", "seed", "forward_process", *ChoiceSettings.model_fields}
    assert METHODS["d3hr"].options.keys() - {"preset", "level"} == DistillSettings.model_fields.keys() - others
    assert METHODS["patches"].options == {"factor": 2, "crops": 5, "smallest": 0.25}
    assert D3hrSettings().resolved == DistillSettings()
    assert PatchSettings().needs == {"teacher"}


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("random_real", {"space": "pixel"}, "Method random_real has no setting 'space'"),
        ("herding", {"space": "sound"}, "Method herding, --settings space: "),
        ("herding", {"space": "latent"}, r"(?s)Method herding needs a prior.*give --prior"),
        ("k_means", {"space": "teacher"}, r"(?s)Method k_means needs a teacher.*give --teacher"),
        ("patches", {}, r"(?s)Method patches needs a teacher.*give --teacher"),
        ("prior_only", {}, r"(?s)Method prior_only needs a prior.*give --prior"),
        ("d3hr", {}, "Method d3hr needs a prior"),
        ("d3hr", {"preset": "best"}, "Method d3hr, --settings preset: unknown; use one of: paper"),
        ("d3hr", {"level": 50}, "Method d3hr, .*not on a grid"),
        ("d3hr", {"ipc": 3}, "Method d3hr has no setting 'ipc'"),
        ("forward_noise", {"solver": "ddim"}, "Method forward_noise has no setting 'solver'"),
        ("forward_noise", {"level": "auto"}, "Method forward_noise, .*inverted latents"),
        ("latent_gaussian", {"level": 3}, "Method latent_gaussian has no setting 'level'"),
        ("prototypes", {"denoising_guidance": -1}, "Method prototypes, --settings: --denoising-guidance"),
    ],
)
def test_what_is_refused_before_anything_is_read(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        METHODS[name].parse(settings, networks=())


def test_what_does_not_fit_the_materials(inputs: MethodInputs, make: Make, tmp_path: Path) -> None:
    """Another size than the prior's, classes it does not know, a grid it does not have, too few images: nothing is written."""
    larger = MethodInputs(inputs.images, 16, inputs.prior, inputs.teacher)
    stranger = MethodInputs(inputs.images, 8, untrained_prior(("ant", "bee")))
    for name in ("d3hr", "prior_only", "forward_noise", "latent_gaussian", "prototypes"):
        with pytest.raises(SettingsError, match=r"(?s)--image-size 16.*--image-size 8"):
            METHODS[name].check(larger, {})
        with pytest.raises(ClassMismatch, match="cat"):
            METHODS[name].check(stranger, {})
    for name in ("d3hr", "prior_only", "forward_noise", "prototypes"):
        with pytest.raises(SettingsError, match="out of range"):
            METHODS[name].check(inputs, {"steps": 2000})
    METHODS["herding"].check(larger, {"space": "latent"})
    for name in ("random_real", "herding", "k_center", "k_means", "prototypes"):
        with pytest.raises(DataError, match=r"cat \(4\)"):
            make(name, "set", ipc=5)
    with pytest.raises(SettingsError, match="--ipc"):
        make("herding", "set", ipc=0)
    with pytest.raises(SettingsError, match="d3hr, chosen"):
        method_named("magic")
    assert not list(tmp_path.glob("set*"))


def test_a_class_map_leads_to_the_prior(inputs: MethodInputs, image_folder: MakeFolder, tmp_path: Path) -> None:
    """Images of "formica" drawn as the prior's "ant" are those of "ant" but for the noise, which follows the name: the id is 1."""
    images = load_images(image_folder({"formica": 4, "bee": 4}, name="renamed"))
    mapped = MethodInputs(images, 8, inputs.prior, class_map={"formica": "ant"})
    for name in ("d3hr", "prior_only", "prototypes"):
        settings = {key: value for key, value in FAST.items() if key in METHODS[name].options}
        made = METHODS[name].make(mapped, tmp_path / name, ipc=1, shared=tmp_path / "shared", **settings)
        assert [(entry.name, entry.conditioning_id) for entry in made.manifest.classes] == [("bee", 3), ("formica", 1)]
