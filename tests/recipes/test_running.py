"""Every recipe from end to end, scaled down: a few images of 8 pixels, a small prior of random weights in DiT-XL/2's layout."""

import json
from pathlib import Path

import datasets
import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from d3hr import DistilledSet, Prior
from d3hr.__main__ import main
from d3hr.data.opening import load_images
from d3hr.errors import ClassMismatch, DataError, SettingsError
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import seeded_student
from d3hr.prior.imagenet import imagenet_labels
from d3hr.recipes.recipe import Recipe, read_recipe
from d3hr.recipes.running import corrected, run_recipe
from tests.execution.works import Elsewhere
from tests.recipes.test_recipe import FOLDER, ONE_QUICKLY

NAMES = {  # some of the classes, called and ordered as the data set has them
    "cifar10": ["airplane", "automobile", "bird"],
    "cifar100": ["apple", "aquarium_fish", "beaver"],
    "tiny-imagenet": ["n01443537", "n01629819", "n01641577"],
    "imagenet-1k": ["tench, Tinca tinca", "crane", "crane2"],
    "imagenette": ["tench", "English springer", "gas pump"],
    "imagewoof": list((read_recipe(FOLDER / "imagewoof.yaml").data.class_names or {}).keys()),
}
IDS = {  # as what they must be drawn, whatever the source calls them: its first label of ImageWoof is a Shih-Tzu, crane2 the machine
    "imagenet-1k": [0, 134, 517],
    "imagenette": [0, 217, 571],
    "imagewoof": [155, 159, 162, 167, 182, 193, 207, 229, 258, 273],
}
BRIEF = Path(__file__).with_name("brief.yaml")
IPC = 2


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DiTPipeline of random weights with the 1000 labels of ImageNet and learned sigma."""
    folder = tmp_path_factory.mktemp("dit") / "dit"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=4, patch_size=2,
            num_embeds_ada_norm=1000,
        )  # fmt: skip
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 8),
            latent_channels=4, norm_num_groups=8, sample_size=8, scaling_factor=0.18215, layers_per_block=1,
        )  # fmt: skip
        for parameter in transformer.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    diffusers.DiTPipeline(transformer, vae, diffusers.DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    labels = dict(enumerate(imagenet_labels().values()))
    (folder / "model_index.json").write_text(json.dumps({**index, "id2label": labels}))
    return folder


def png(rng: np.random.Generator, folder: Path) -> bytes:
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / "one.png")
    return (folder / "one.png").read_bytes()


def as_on_the_hub(recipe: Recipe, names: list[str], folder: Path) -> Path:
    """Write both splits with a card and the recipe's columns: three training images and one test image of each class."""
    folder.mkdir(parents=True)
    section, rng = recipe.data, np.random.default_rng(0)
    assert section.image_column is not None
    assert section.label_column is not None
    features = datasets.Features({section.image_column: datasets.Image(), section.label_column: datasets.ClassLabel(names=names)})
    for split, each in ((section.split, 3), (section.test_split, 1)):
        labels = [label for label in range(len(names)) for _ in range(each)]
        images = [{"bytes": png(rng, folder.parent), "path": None} for _ in labels]
        table = datasets.Dataset.from_dict({section.image_column: images, section.label_column: labels}, features=features)
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    splits = "".join(f"  - split: {split}\n    path: {split}-*\n" for split in (section.split, section.test_split))
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n")
    return folder


def scaled_down(recipe: Recipe) -> Recipe:
    """The same recipe with less of everything."""
    fit = recipe.fit and recipe.fit.model_copy(update={"epochs": 1, "batch_size": 4, "precision": "fp32"})
    distill = recipe.distill.model_copy(update={"steps": 4, "level": 2, "num_candidates": 10})
    evaluate = recipe.evaluate.model_copy(update={"student": "convnet1", "protocol": str(BRIEF), "image_size": 4, "seeds": (0,)})
    return recipe.model_copy(update={"ipc": (IPC, 1), "fit": fit, "distill": distill, "evaluate": evaluate})


def times(folder: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("results.json", "results.csv")
    }


@pytest.mark.parametrize("file", ONE_QUICKLY)
def test_a_recipe_runs_from_images_to_table(file: Path, dit: Path, tmp_path: Path) -> None:
    """Three rows, the right classes and counts; again nothing is made again; another number of images reuses prior and statistics."""
    recipe, names, out = read_recipe(file), NAMES[file.stem], tmp_path / "out"
    data = as_on_the_hub(recipe, names, tmp_path / "data")
    small = scaled_down(recipe)
    comparison = run_recipe(small, out, ipc=IPC, data=data, prior=dit)
    assert [(row.method, row.ipc) for row in comparison.rows] == [("d3hr", IPC), ("random_real", IPC), ("prior_only", IPC)]
    made = DistilledSet.load(out / f"ipc{IPC}")
    assert made.class_names == tuple((recipe.data.class_names or {}).get(name, name) for name in names)
    assert made.images.shape == (IPC * len(names), 3, 8, 8)
    if recipe.fit is None:
        assert [entry.conditioning_id for entry in made.manifest.classes] == IDS[file.stem]
    else:
        assert Prior.from_pretrained(out / "prior").class_names == made.class_names
        assert json.loads((out / "prior" / "fit.json").read_text())["steps"] == {"transformer": 3}  # one epoch of 9 images in fours
    before = times(out)
    assert run_recipe(small, out, ipc=IPC, data=data, prior=dit) == comparison
    assert times(out) == before
    elsewhere = Elsewhere()
    run_recipe(small, out, ipc=1, execution=elsewhere, data=data, prior=dit)
    assert elsewhere.works[-2:] == ["NoiseDenoiser", "Trainings"]
    assert {path: when for path, when in times(out).items() if path in before} == before
    assert len(DistilledSet.load(out / "ipc1").images) == len(names)


def test_a_source_whose_names_were_put_right_is_not_renamed_again(tmp_path: Path) -> None:
    """Names that are right already stay; the wrong ones in another order are refused, for then nobody knows what they mean."""
    recipe = read_recipe(FOLDER / "imagewoof.yaml")
    names = recipe.data.class_names
    assert names is not None
    right = load_images(as_on_the_hub(recipe, list(names.values()), tmp_path / "right"))
    assert corrected(right, names) is right
    other = load_images(as_on_the_hub(recipe, sorted(names, reverse=True), tmp_path / "other"))
    with pytest.raises(DataError, match="not those that the recipe corrects"):
        corrected(other, names)


def test_an_uncovered_number_of_images_is_refused_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = read_recipe(FOLDER / "cifar10.yaml")
    with pytest.raises(SettingsError, match="1, 10, 50, 100"):
        run_recipe(recipe, tmp_path / "out", ipc=7, data=tmp_path / "missing")
    assert main(["recipe", str(FOLDER / "cifar10.yaml"), "--ipc", "7", "--out", str(tmp_path / "out")]) == 2
    assert "1, 10, 50, 100" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_runs_a_file(dit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = read_recipe(FOLDER / "imagenette.yaml")
    data = as_on_the_hub(recipe, NAMES["imagenette"], tmp_path / "data")
    (tmp_path / "mine.yaml").write_text(json.dumps(scaled_down(recipe).model_dump(mode="json")))
    arguments = [
        "recipe",
        str(tmp_path / "mine.yaml"),
        "--ipc",
        "2",
        "--out",
        str(tmp_path / "out"),
        "--data",
        str(data),
        "--prior",
        str(dit),
    ]
    assert main([*arguments, "--json"]) == 0
    assert [row["method"] for row in json.loads(capsys.readouterr().out)["results"]] == ["d3hr", "random_real", "prior_only"]
    assert (tmp_path / "out" / "ipc2-evaluation" / "settings.yaml").exists()


@pytest.mark.slow
def test_with_a_teacher_students_learn_from_its_labels(dit: Path, tmp_path: Path) -> None:
    """The recipe's protocol for soft labels is taken; rows of hard labels stay beside. A teacher of other classes is refused."""
    recipe, out = read_recipe(FOLDER / "cifar10.yaml"), tmp_path / "out"
    assert recipe.evaluate.soft_protocol == "paper-cifar"
    data = as_on_the_hub(recipe, NAMES["cifar10"], tmp_path / "data")
    (tmp_path / "soft.yaml").write_text("base: paper-cifar\nepochs: 1\n")
    small = scaled_down(recipe)
    small = small.model_copy(update={"evaluate": small.evaluate.model_copy(update={"soft_protocol": str(tmp_path / "soft.yaml")})})
    for name, classes in (("teacher", NAMES["cifar10"]), ("stranger", ["a", "b"])):
        (tmp_path / name).mkdir()
        Teacher(seeded_student("convnet1", len(classes), 8, 0), "convnet1", tuple(classes), 8, {}).save(tmp_path / name)
    run_recipe(small, out, ipc=IPC, data=data, prior=dit)
    rows = run_recipe(small, out, ipc=IPC, data=data, prior=dit, teacher=tmp_path / "teacher").rows
    assert [(row.protocol.name, row.protocol.labels) for row in rows] == [("soft", "online")] * 3
    kept = json.loads((out / f"ipc{IPC}-evaluation" / "results.json").read_text())
    assert [row["labels"] for row in kept] == ["hard"] * 3 + ["soft"] * 3
    with pytest.raises(ClassMismatch):
        run_recipe(small, out, ipc=IPC, data=data, prior=dit, teacher=tmp_path / "stranger")


def test_a_script_of_the_hub_is_read_from_its_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export holds a folder for each configuration, whose images must not be mixed; a stand-in for the Hub refuses the script."""
    recipe = read_recipe(FOLDER / "imagenette.yaml")
    for config, names in (("160px", ["a", "b", "c"]), ("full_size", ["d", "e"])):
        as_on_the_hub(recipe, names, tmp_path / "repository" / config)
    load = datasets.load_dataset

    def hub(
        name: str, config: str | None = None, *, cache_dir: str | None = None, data_dir: str | None = None, revision: str | None = None
    ) -> object:
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found imagenette.py")
        assert (name, revision) == ("frgfm/imagenette", "refs/convert/parquet")
        return load(str(tmp_path / "repository"), data_dir=data_dir, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", hub)
    images = load_images("frgfm/imagenette", config="full_size", split="validation")
    assert images.counts == {"d": 1, "e": 1}


def test_a_configuration_chooses_among_several(tmp_path: Path) -> None:
    """A repository that names its configurations in its card."""
    recipe, root = read_recipe(FOLDER / "imagenette.yaml"), tmp_path / "repository"
    for config, names in (("small", ["a", "b", "c"]), ("large", ["d", "e"])):
        as_on_the_hub(recipe, names, root / config)
    files = "".join(f"- config_name: {c}\n  data_files:\n  - split: train\n    path: {c}/train-*\n" for c in ("small", "large"))
    (root / "README.md").write_text(f"---\nconfigs:\n{files}---\n")
    assert load_images(root, config="large").class_names == ("d", "e")
    assert load_images(root, config="small").class_names == ("a", "b", "c")
