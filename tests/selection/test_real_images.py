"""Sets of chosen real images: which pixels they hold, where these come from, and that nothing else decides the choice."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr import DistilledSet, ImageData, distill, invert, load_images
from d3hr.data.codec import to_uint8
from d3hr.distillation.presets import distill_settings
from d3hr.distillation.settings import DistillSettings
from d3hr.distillation.tasks import generate_images
from d3hr.errors import ClassMismatch, DataError, DistilledSetError, SettingsError
from d3hr.evaluation.students import new_student
from d3hr.evaluation.teachers import Teacher
from d3hr.execution.base import SERIAL, Result, Task, Work
from d3hr.execution.processes import WorkerProcesses
from d3hr.selection.choosing import Chooser, Confidence
from d3hr.selection.difficulty import denoising_loss
from d3hr.selection.features import Features
from d3hr.sets.packing import unpack
from tests.conftest import MakeFolder, tree, untrained_prior

COUNTS = {"ant": 9, "bee": 8, "cat": 7}
CLASSES = tuple(COUNTS)
MakeTeacher = Callable[[tuple[str, ...]], Teacher]


@pytest.fixture
def images(image_folder: MakeFolder) -> ImageData:
    return load_images(image_folder(COUNTS, size=16))


@pytest.fixture
def teacher_of() -> MakeTeacher:
    """An untrained teacher of given classes."""

    def make(class_names: tuple[str, ...]) -> Teacher:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Teacher(new_student("convnet1", len(class_names), 16).eval(), "convnet1", class_names, 16, {})

    return make


def real(images: ImageData, out: Path, ipc: int = 3, **options: Any) -> DistilledSet:
    return distill(images, None, out, ipc=ipc, **{"candidates": "real", **options})


def of_sources(distilled: DistilledSet, images: ImageData, side: int) -> torch.Tensor:
    """The real images that the manifest names, uint8 [N, 3, side, side], class by class."""
    entries = distilled.manifest.classes
    return torch.cat([images.at_size(side).pixels(entry.name, [source.index for source in entry.sources]) for entry in entries])


@pytest.mark.parametrize("strategy", ["exact", "search", "snap", "random"])
def test_images_are_those_of_the_data(strategy: str, images: ImageData, tmp_path: Path) -> None:
    """At their own size and to the last bit, none twice; manifest and card say how many there are, and which."""
    options: dict[str, Any] = {"num_candidates": 50} if strategy == "search" else {}
    distilled = real(images, tmp_path / "set", strategy=strategy, **options)
    assert torch.equal(distilled.images, of_sources(distilled, images, 16))
    for entry in distilled.manifest.classes:
        assert len({source.index for source in entry.sources}) == 3
        assert [source.image for source in entry.sources] == [0, 1, 2]
        assert all(source.name.startswith(f"{entry.name}/") for source in entry.sources)
    assert (distilled.method, distilled.manifest.real_images) == ("chosen", 9)
    assert "contains 9 real images" in (tmp_path / "set" / "README.md").read_text()
    assert not distilled.statistics


def test_one_image_is_the_nearest_to_the_mean(images: ImageData, tmp_path: Path) -> None:
    """One image has a mean and no spread, so the score of a group of one is its distance to the mean of its class."""
    distilled = real(images, tmp_path / "set", ipc=1, components=0)
    features = Features(images, DistillSettings(**distilled.manifest.settings), {})
    for entry in distilled.manifest.classes:
        points = features.of(entry.name)
        assert entry.sources[0].index == int((points - points.mean(dim=0)).norm(dim=1).argmin())


def test_another_side_is_one_resize(images: ImageData, tmp_path: Path) -> None:
    distilled = real(images, tmp_path / "set", image_size=12)
    assert torch.equal(distilled.images, of_sources(distilled, images, 12))


def test_four_in_each_stored_image(images: ImageData, tmp_path: Path) -> None:
    """Each at half the side, resized once; the first four sources are the tiles of the first stored image."""
    distilled = real(images, tmp_path / "set", ipc=1, pack=2)
    assert (distilled.pack, distilled.manifest.real_images, len(distilled.images)) == (2, 12, 3)
    assert torch.equal(unpack(distilled.images, 2), of_sources(distilled, images, 8))
    assert all({source.image for source in entry.sources} == {0} for entry in distilled.manifest.classes)


@pytest.mark.slow
def test_the_choice_does_not_depend_on_the_workers(images: ImageData, tmp_path: Path) -> None:
    options: dict[str, Any] = {"keep": "easiest", "easiest_share": 0.6, "modes": 2}
    here, there = (real(images, tmp_path / name, execution=place, **options) for name, place in [("a", SERIAL), ("b", WorkerProcesses(2))])
    assert tree(here.path) == tree(there.path)


@dataclass(frozen=True)
class Stopped:
    """Stops after a number of results."""

    after: int

    def run(self, work: Work[Task, Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        for done, result in enumerate(SERIAL.run(work, tasks)):
            if done == self.after:
                raise KeyboardInterrupt
            yield result

    def session(self) -> AbstractContextManager["Stopped"]:
        return nullcontext(self)


def test_a_stopped_run_ends_with_the_same_bytes(images: ImageData, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        real(images, tmp_path / "stopped", execution=Stopped(2))
    assert len(list((tmp_path / "stopped.partial" / "chosen").glob("*.json"))) == 2
    assert tree(real(images, tmp_path / "stopped").path) == tree(real(images, tmp_path / "whole").path)


def confident(images: ImageData, own: dict[str, list[float]], doubtful: dict[str, list[bool]], count: int, **options: Any) -> Chooser:
    settings = {"candidates": "real", **options}
    confidence = Confidence(
        {name: torch.tensor(values) for name, values in own.items()}, {name: torch.tensor(values) for name, values in doubtful.items()}
    )
    return Chooser(Features(images, distill_settings(ipc=count, **settings), {}), count, confidence)


def test_filters_and_rules_of_confidence(images: ImageData) -> None:
    """Of images 0 to 8 of a class the sixth is the easiest, then 2, 8, 0; 1 and 5 are doubtful."""
    own = {"ant": [0.7, 0.1, 0.9, 0.2, 0.3, 0.05, 0.95, 0.4, 0.8]}
    doubtful = {"ant": [index in (1, 5) for index in range(9)]}
    assert confident(images, own, doubtful, 3, rule="easiest").choose("ant") == [6, 2, 8]
    assert set(confident(images, own, doubtful, 3, rule="margin").choose("ant")) == {3, 4, 7}
    assert set(confident(images, own, doubtful, 4, keep="easiest", easiest_share=0.1).choose("ant")) == {0, 2, 6, 8}
    kept = confident(images, own, doubtful, 7, keep="undoubted").choose("ant")
    assert set(kept) == {0, 2, 3, 4, 6, 7, 8}
    with pytest.raises(DataError, match="Class 'ant': Too few images") as caught:
        confident(images, own, {"ant": [True] * 8 + [False]}, 2, keep="undoubted").choose("ant")
    assert caught.value.found == "1 of 9, for 2 to choose"


def test_mixed_sets_begin_with_real_images(images: ImageData, tmp_path: Path) -> None:
    """The drawn ones are those of a set of as many drawn images, and the statistics are kept."""
    prior = untrained_prior(CLASSES, image_size=16)
    few: dict[str, Any] = {"steps": 6, "level": 3, "num_candidates": 20, "modes": 1}
    mixed = distill(images, prior, tmp_path / "mixed", candidates="mixed", ipc=4, real_share=0.25, **few)
    drawn = distill(images, prior, tmp_path / "drawn", preset="mixture", ipc=3, **few)
    for name in CLASSES:
        assert torch.equal(mixed.of_class(name)[1:], drawn.of_class(name))
    first = torch.stack([mixed.of_class(name)[0] for name in CLASSES])
    assert torch.equal(first, of_sources(mixed, images, 16))
    assert (mixed.method, mixed.manifest.real_images, len(mixed.statistics)) == ("mixed", 3, 3)
    with pytest.raises(SettingsError, match="Statistics hold no real images"):
        mixed.expand(prior, 6, tmp_path / "more")
    with pytest.raises(SettingsError, match="Statistics hold no real images") as caught:
        drawn.expand(prior, 2, tmp_path / "more", candidates="real")
    assert "d3hr distill DATA --candidates real --out SET" in str(caught.value)


def test_a_real_start_is_inverted_and_denoised(images: ImageData, tmp_path: Path) -> None:
    prior = untrained_prior(CLASSES, image_size=16)
    options: dict[str, Any] = {"steps": 6, "denoising_level": 2, "denoising_guidance": 2.0}
    started = distill(images, prior, tmp_path / "set", ipc=2, candidates="real", **options)
    assert (started.method, started.manifest.real_images) == ("real_start", 0)
    assert "contains 6 images that start from real ones" in (tmp_path / "set" / "README.md").read_text()
    indices = [source.index for source in started.manifest.classes[1].sources]
    condition = prior.conditions(CLASSES)["bee"]
    noisy = invert(prior, prior.encode(images.pick("bee", indices)), condition, level=2, steps=6, guidance_scale=1.0)
    expected = generate_images(prior, noisy, condition, level=2, steps=6, guidance_scale=2.0)
    assert torch.equal(started.of_class("bee"), to_uint8(expected))


def test_latents_are_compared_at_a_level(images: ImageData, tmp_path: Path) -> None:
    """The images are real ones all the same; another level chooses others, or the same in another run."""
    prior = untrained_prior(CLASSES, image_size=16)
    distilled = distill(images, prior, tmp_path / "set", ipc=3, candidates="real", space="latent", statistics_level=2, steps=6)
    assert torch.equal(distilled.images, of_sources(distilled, images, 16))
    assert distilled.manifest.prior.fingerprint == prior.fingerprint
    with pytest.raises(DistilledSetError, match="no statistics to expand") as caught:
        distilled.expand(prior, 2, tmp_path / "more")
    assert "choose from the data again" in str(caught.value)


def test_every_tenth_image_by_the_loss_of_the_prior(images: ImageData, tmp_path: Path) -> None:
    """One image is that of the median loss."""
    prior = untrained_prior(CLASSES, image_size=16)
    distilled = distill(images, prior, tmp_path / "set", ipc=1, candidates="real", rule="interval", steps=10)
    label = torch.full((9,), prior.class_names.index("ant"))
    latents = prior.encode(images.pick("ant", range(9)))
    losses = denoising_loss(prior, latents, label, levels=[2, 4, 6], noises=2, seed=0, steps=10)
    assert distilled.manifest.classes[0].sources[0].index == int(losses.argsort()[4])


@pytest.mark.parametrize("rule", ["centre", "facility", "separation", "centre_margin"])
def test_every_rule_chooses_different_images(rule: str, images: ImageData, teacher_of: MakeTeacher, tmp_path: Path) -> None:
    distilled = real(images, tmp_path / "set", ipc=2, rule=rule, teacher=teacher_of(CLASSES))
    assert all(len({source.index for source in entry.sources}) == 2 for entry in distilled.manifest.classes)
    assert (distilled.manifest.teacher is not None) == (rule == "centre_margin")


def test_what_is_kept_is_found_again(images: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents in the shared folder serve sets of another IPC, without the encoder."""
    prior = untrained_prior(CLASSES, image_size=16)
    options: dict[str, Any] = {"candidates": "real", "space": "latent", "shared": tmp_path / "shared"}
    distill(images, prior, tmp_path / "a", ipc=2, **options)
    monkeypatch.setattr(type(prior), "encode", lambda *_: pytest.fail("encoded again"))
    assert distill(images, prior, tmp_path / "b", ipc=3, **options).ipc == 3


def test_what_a_teacher_said_is_found_again(
    images: ImageData, teacher_of: MakeTeacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"rule": "easiest", "teacher": teacher_of(CLASSES), "shared": tmp_path / "shared"}
    two = real(images, tmp_path / "a", ipc=2, **options)
    monkeypatch.setattr(Teacher, "logits", lambda *_: pytest.fail("asked again"))
    three = real(images, tmp_path / "b", ipc=3, **options)
    assert all(torch.equal(two.of_class(name), three.of_class(name, 2)) for name in CLASSES)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"candidates": "gaussian"}, "Images that are drawn need a prior"),
        ({"candidates": "mixed"}, "Images that are drawn need a prior"),
        ({"space": "latent"}, "Latents, by which images are compared, need a prior"),
        ({"denoising_level": 3}, "Images that are denoised need a prior"),
        ({"rule": "interval"}, "ordered by the loss of a prior need a prior"),
        ({"space": "teacher"}, "The space teacher needs a teacher"),
        ({"statistics_level": 3}, "only latents have a level"),
        ({"candidates": "mixed", "real_share": 0.1}, "leaves none for one kind"),
        ({"store": "statistics"}, "Statistics are stored of drawn images alone"),
        ({"temperature": 0.5}, "--temperature has no effect here"),
        ({"candidates": "gaussian", "rule": "centre"}, "--rule has no effect here"),
        ({"strategy": "snap", "candidates": "gaussian"}, "strategy snap is for real candidates"),
        ({"pack": 4}, "at least 8"),
        ({"level": "auto"}, "--level auto measures inverted latents"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], words: str, images: ImageData, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=words):
        real(images, tmp_path / "set", **options)
    assert not list(tmp_path.glob("set*"))


def test_too_few_images_are_named(images: ImageData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer than 8 real images") as caught:
        real(images, tmp_path / "set", ipc=2, pack=2)
    assert caught.value.found == "cat (7)"
    assert not list(tmp_path.glob("set*"))


def test_a_teacher_of_other_classes_is_refused(images: ImageData, teacher_of: MakeTeacher, tmp_path: Path) -> None:
    with pytest.raises(ClassMismatch):
        real(images, tmp_path / "set", space="teacher", teacher=teacher_of(("ant", "bee", "dog")))


def test_a_teacher_compares_and_is_named(images: ImageData, teacher_of: MakeTeacher, tmp_path: Path) -> None:
    """Its classes may have another order; its fingerprint is in the manifest and decides the key."""
    teacher = teacher_of(("cat", "ant", "bee"))
    distilled = real(images, tmp_path / "set", space="teacher", keep="easiest", easiest_share=0.5, teacher=teacher)
    assert distilled.manifest.teacher == teacher.fingerprint
    probabilities = teacher.logits(images.pick("ant", range(9)), CLASSES).softmax(dim=1)[:, 0]
    easiest = set(probabilities.argsort(descending=True)[:4].tolist())
    assert {source.index for source in distilled.manifest.classes[0].sources} <= easiest
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["teacher"] == teacher.fingerprint
