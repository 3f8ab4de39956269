import json
from pathlib import Path
from typing import Any

import pytest

from d3hr import DistilledSet, ImageData, Prior, load_images
from d3hr.__main__ import main
from d3hr.comparison.matrix import matrix_from, matrix_names, read_matrix
from d3hr.comparison.run import compare
from d3hr.errors import OutputError, SettingsError
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.teacher_training import train_teacher
from d3hr.methods.job import MethodInputs
from d3hr.methods.registry import METHODS
from tests.conftest import MakeFolder, untrained_prior
from tests.processes import kill, start, wait_for

BRIEF = Path(__file__).parent.parent / "recipes" / "brief.yaml"
FIELDS: dict[str, Any] = {
    "methods": ["random_real", {"name": "one draw", "method": "d3hr", "settings": {"strategy": "random"}}],
    "ipc": [1, 2],
    "distillation_seeds": [0, 1],
    "training_seeds": [0, 1],
    "students": ["convnet1"],
    "protocols": [str(BRIEF)],
}
COMMON = {"preset": "gentle", "steps": 4, "level": 2}


@pytest.fixture(scope="module")
def few() -> ImageData:
    return load_images("digits", split="validation")


@pytest.mark.parametrize("name", matrix_names())
def test_the_matrices_known_by_name_are_whole(name: str) -> None:
    """Each says what it is to find out, and every row's settings are such as its method has."""
    matrix = read_matrix(name)
    assert matrix.about
    assert len(matrix.methods) > 3
    for row in matrix.methods:
        method = METHODS[row.method]
        method.parse(row.settings, ("prior", "teacher"))
    assert any(row.method == "random_real" for row in matrix.methods)


def test_a_matrix_counts_its_trainings() -> None:
    """2 methods x 2 IPC x 2 x 2 seeds x 1 student x 1 protocol."""
    assert matrix_from(FIELDS).trainings == 16
    assert read_matrix("candidates", {"ipc": [1, 10], "students": None}).ipc == (1, 10)


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ([0], [[0], [1], [2]]),
        ([0, 1], [[0, 1], [2, 3], [4, 5]]),
        ([0, 2], [[0, 2], [3, 5], [6, 8]]),
        ([7, 3], [[7, 3], [12, 8], [17, 13]]),
    ],
)
def test_no_two_sets_share_a_training_seed(seeds: list[int], expected: list[list[int]]) -> None:
    matrix = matrix_from({**FIELDS, "training_seeds": seeds})
    assert [matrix.seeds_of_set(place) for place in range(3)] == expected


def test_rows_of_one_name_share_out_the_images_per_class() -> None:
    """One name may stand for other settings at another IPC, not for two at once."""
    few = {"method": "d3hr", "name": "chosen", "settings": {"temperature": 0}, "ipc": [1]}
    many = {"method": "d3hr", "name": "chosen", "settings": {"modes": 2}, "ipc": [2]}
    matrix = matrix_from({**FIELDS, "methods": ["random_real", few, many]})
    assert [row.settings for row in matrix.methods_at(2)] == [{}, {"modes": 2}]
    assert matrix.trainings == 16
    with pytest.raises(SettingsError, match="two rows are called 'chosen'"):
        matrix_from({**FIELDS, "methods": [few, {**many, "ipc": [1, 2]}]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["magic"]}, "unknown method"),
        ({"methods": []}, "matrix.methods"),
        ({"methods": ["herding", {"method": "herding", "settings": {"space": "latent"}}]}, "two rows are called 'herding'"),
        ({"training_seeds": [0, 0]}, "0 is listed twice"),
        ({"distillation_seeds": [1, 1]}, "1 is listed twice"),
        ({"ipc": [0]}, "images per class must be at least 1"),
        ({"seeds": [1]}, "matrix.seeds"),
        ({"protocols": ["secret"]}, "Unknown protocol"),
    ],
)
def test_bad_fields_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        matrix_from({**FIELDS, **changes})


@pytest.mark.parametrize(("text", "words"), [("- a", "matrix .* is not a mapping"), ("a: [", "matrix .* is not YAML")])
def test_a_damaged_file_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SettingsError, match=words):
        read_matrix(tmp_path / "mine.yaml")
    with pytest.raises(SettingsError, match="inversion-x-grouping"):
        read_matrix("secret")


@pytest.mark.slow
def test_a_matrix_is_run_once(few: ImageData, digits_prior: Prior, tmp_path: Path) -> None:
    """Two rows at two IPC, each of 2 sets x 2 trainings with training seeds of their own; again nothing is done; another matrix
    of the same inputs goes on beside it, others are refused. HLR is full data less the row, IOR the row less random real."""
    matrix, inputs = matrix_from(FIELDS), MethodInputs(few, 8, prior=digits_prior)
    brief = protocol_named("teacher").model_copy(update={"epochs": 1})
    whole = train_teacher(few, tmp_path / "whole", test=few, student="convnet1", protocol=brief)
    found = compare(matrix, inputs, few, tmp_path / "out", settings=COMMON, full_data=[whole])
    assert [(row.name, row.method, row.ipc, len(row.runs)) for row in found.rows] == [
        ("random_real", "random_real", 1, 4), ("one draw", "d3hr", 1, 4), ("random_real", "random_real", 2, 4), ("one draw", "d3hr", 2, 4),
    ]  # fmt: skip
    assert [(run.distillation_seed, run.training_seed) for run in found.rows[0].runs] == [(0, 0), (0, 1), (1, 2), (1, 3)]
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    real, ours = kept[0], kept[1]
    assert ours["ior"] == pytest.approx(ours["accuracy_mean"] - real["accuracy_mean"], abs=2e-6)
    assert ours["hlr"] == pytest.approx(whole.about["accuracy"] - ours["accuracy_mean"], abs=2e-6)
    assert real["ior"] is None
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.suffix in (".png", ".json", ".safetensors")}
    assert compare(matrix, inputs, few, tmp_path / "out", settings=COMMON, full_data=[whole]) == found
    again = {path: path.stat().st_mtime_ns for path in stamps}
    changed = {path.name for path in stamps if stamps[path] != again[path]}
    assert changed <= {"results.json"}
    further = ["random_real", {"method": "herding", "ipc": [2]}]
    more = compare(matrix_from({**FIELDS, "methods": further}), inputs, few, tmp_path / "out")
    assert [(row.name, row.ipc) for row in more.rows] == [("random_real", 1), ("random_real", 2), ("herding", 2)]
    with pytest.raises(OutputError, match="data was"):
        compare(matrix, MethodInputs(load_images("digits"), 8, prior=digits_prior), few, tmp_path / "out", settings=COMMON)


@pytest.mark.slow
def test_real_pixels_are_made_at_the_side_that_students_see(image_folder: MakeFolder, tmp_path: Path) -> None:
    """A prior of twice the students' side: rows of real images are those without a prior; latents are still encoded at the prior's side."""
    images = load_images(image_folder({"ant": 5, "bee": 5}))
    real = ["random_real", "herding", "k_center", "k_means"]
    latent = {"method": "k_center", "name": "latent", "settings": {"space": "latent"}}
    fields = {"ipc": [1], "distillation_seeds": [0, 1], "students": ["convnet1"], "protocols": [str(BRIEF)]}
    prior = untrained_prior(("ant", "bee"), image_size=16)
    alone = compare(matrix_from({**fields, "methods": real}), MethodInputs(images, 8), images, tmp_path / "alone")
    with_prior = matrix_from({**fields, "methods": [*real, latent, "prior_only"]})
    given: dict[str, Any] = {"settings": {"steps": 4}, "image_size": 8}
    found = compare(with_prior, MethodInputs(images, 16, prior=prior), images, tmp_path / "out", **given)
    assert [row.runs for row in found.rows[:4]] == [row.runs for row in alone.rows]
    for method in real:
        made = DistilledSet.load(tmp_path / "out" / "sets" / f"{method}-ipc1-8px-seed0")
        assert made.images.equal(DistilledSet.load(tmp_path / "alone" / "sets" / f"{method}-ipc1-seed0").images)
    chosen = METHODS["k_center"].make(
        MethodInputs(images, 16, prior=prior), tmp_path / "large", ipc=1, shared=tmp_path / "shared", space="latent"
    )
    files = [tmp_path / "out" / "sets" / name for name in ("latent-ipc1-8px-seed0", "prior_only-ipc1-seed0")]
    small, drawn = map(DistilledSet.load, files)
    assert (small.image_size, drawn.image_size) == (8, 16)
    for name in images.class_names:
        place = int((images.at_size(16).of_class(name) == chosen.of_class(name)).flatten(1).all(dim=1).nonzero())
        assert small.of_class(name)[0].equal(images.of_class(name)[place])


def test_what_cannot_be_run_is_refused_before_any_work(few: ImageData, digits_prior: Prior, tmp_path: Path) -> None:
    matrix, inputs = matrix_from(FIELDS), MethodInputs(few, 8, prior=digits_prior)
    for given, made_of, settings, words in [
        (matrix, MethodInputs(few, 8), COMMON, "Method d3hr needs a prior"),
        (matrix, inputs, {**COMMON, "levels": 3}, "No method of the matrix takes this setting"),
        (matrix, inputs, {**COMMON, "preset": "magic"}, "Method d3hr"),
        (matrix_from({**FIELDS, "protocols": ["stored"]}), inputs, COMMON, "needs a teacher"),
    ]:
        with pytest.raises(SettingsError, match=words):
            compare(given, made_of, few, tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_half_way_it_repeats_no_finished_training(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Killed when three of eight trainings have their file, and started again: those are not written again, and all eight are there."""
    image_folder({"ant": 4, "bee": 4})
    untrained_prior(("ant", "bee")).save_pretrained(tmp_path / "prior")
    images, out, prior = (str(tmp_path / name) for name in ("images", "out", "prior"))
    command = ["compare", images, "--test", images, "--out", out, "--prior", prior, "--methods", "[random_real,prior_only]"]
    command += ["--ipc", "[1,2]", "--distillation-seeds", "[0,1]", "--students", "[convnet1]", "--protocols", f"[{BRIEF}]"]
    command += ["--settings", "{steps: 4}"]
    process = start(main, command, log=tmp_path / "log")
    kept = tmp_path / "out" / "trainings"
    wait_for(lambda: len(list(kept.glob("*.json"))) >= 3, process)
    kill(process)
    first = {path: path.stat().st_mtime_ns for path in kept.glob("*.json")}
    assert 3 <= len(first) <= 8
    assert main(command) == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in first.items())
    assert len(list(kept.glob("*.json"))) == 8
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(row["method"], row["ipc"], row["seeds"]) for row in rows] == [
        ("random_real", 1, 2), ("prior_only", 1, 2), ("random_real", 2, 2), ("prior_only", 2, 2),
    ]  # fmt: skip
