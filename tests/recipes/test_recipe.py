"""What the recipe files say, and what is said of files that are none."""

from pathlib import Path

import pytest
import yaml

from d3hr.errors import SettingsError
from d3hr.prior.class_matching import match_classes
from d3hr.prior.imagenet import imagenet_labels
from d3hr.recipes.recipe import FitSection, Recipe, read_recipe

FOLDER = Path(__file__).parents[2] / "recipes"
FILES = sorted(FOLDER.glob("*.yaml"))
ONE_QUICKLY = [pytest.param(file, marks=[] if file.stem == "imagenette" else pytest.mark.slow, id=file.stem) for file in FILES]
"""One recipe is run in the quick tests."""
CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet-1k": 1000, "imagenette": 10, "imagewoof": 10, "tiny-imagenet": 200}


def test_every_data_set_of_the_paper_has_a_recipe() -> None:
    assert {file.stem: read_recipe(file).data.classes for file in FILES} == CLASSES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recipe_is_the_papers(file: Path) -> None:
    """Level 31 of 50, guidance 4, weights 1, 1, 0.5, a million groups, five seeds, and real images enough for the largest set."""
    recipe = read_recipe(file)
    distill = recipe.distill.resolved
    assert (distill.statistics_level, distill.denoising_level, distill.steps, distill.num_candidates) == (31, 31, 50, 1_000_000)
    assert (distill.inversion_guidance, distill.denoising_guidance, distill.weights) == (4.0, 4.0, (1.0, 1.0, 0.5))
    assert recipe.starts_from == "facebook/DiT-XL-2-256"
    assert (recipe.fit is None) == file.stem.startswith("image")
    assert len(recipe.evaluate.seeds) == 5
    assert recipe.data.classes * max(recipe.ipc) <= recipe.data.train_images
    assert f"d3hr recipe recipes/{file.name} " in file.read_text()


def test_epochs_become_whole_steps() -> None:
    """CIFAR-10: 400 x 50,000 / 256 = 78,125; three epochs over 5 images in fours are 15 / 4, so 4 steps."""
    fit = read_recipe(FOLDER / "cifar10.yaml").fit
    assert fit is not None
    assert fit.steps(50_000) == 78_125
    assert FitSection(init="x", epochs=3, batch_size=4, learning_rate=1e-4).steps(5) == 4


def test_the_corrected_names_of_imagewoof_are_the_labels_wnids() -> None:
    """The labels are numbered by wnid in ascending order; no dog may keep a name that is not its own."""
    names = read_recipe(FOLDER / "imagewoof.yaml").data.class_names
    assert names is not None
    assert list(names.values()) == sorted(names.values())
    wanted = {imagenet_labels()[wnid].split(",")[0].casefold() for wnid in names.values()}
    assert {name.casefold() for name in names} == wanted


def test_imagenet_matches_all_thousand_classes() -> None:
    """With the source's "crane2" in place of the second crane, every class is drawn as itself."""
    recipe, labels = read_recipe(FOLDER / "imagenet-1k.yaml"), list(imagenet_labels().values())
    source = [*labels[:517], "crane2", *labels[518:]]
    matches = match_classes(source, labels, of="ImageNet", class_map=recipe.class_map)
    assert [match.conditioning_id for match in matches] == list(range(1000))


def content() -> dict[str, dict[str, object]]:
    loaded: dict[str, dict[str, object]] = yaml.safe_load((FOLDER / "cifar10.yaml").read_text())
    return loaded


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distill": {"level": "high"}}, "distill.level"),
        ({"distill": {"levle": 3}}, "distill.levle"),
        ({"distill": {"preset": "best"}}, "paper, released, fast, mixture, gentle"),
        ({"fit": {"epochs": 0}}, "fit.epochs"),
        ({"evaluate": {"protocol": "best"}}, "dc, hard, paper-cifar"),
        ({"evaluate": {"seeds": []}}, "evaluate.seeds"),
        ({"data": {"test_images": 3}}, "every class needs an image"),
        ({"data": {"class_names": {"a": "b"}}}, "class_names gives 1"),
        ({"prior": "facebook/DiT-XL-2-256"}, "either fit or prior"),
        ({"ipc": [1, 1]}, "different numbers"),
        ({"ipc": None}, "ipc"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named(change: dict[str, object], words: str, tmp_path: Path) -> None:
    whole = content()
    merged = {name: {**whole[name], **value} if isinstance(value, dict) else value for name, value in change.items()}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**whole, **merged}))
    with pytest.raises(SettingsError) as caught:
        read_recipe(file)
    assert str(file) in str(caught.value)
    assert words in str(caught.value)


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({name: value for name, value in content().items() if name != "evaluate"}))
    with pytest.raises(SettingsError, match="evaluate: Field required"):
        read_recipe(file)


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "not YAML"), ("- a", "not a mapping"), ("", "not a mapping"), (None, "cannot be read")]
)
def test_what_is_no_recipe_is_refused(text: str | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        read_recipe(file)


def test_a_recipe_read_is_a_recipe_written(tmp_path: Path) -> None:
    recipe = read_recipe(FOLDER / "imagewoof.yaml")
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
