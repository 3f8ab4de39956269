"""A choice from images in memory: what it says to do is done in Python, where the images are."""

from pathlib import Path

import pytest

import d3hr
from d3hr import load_images
from d3hr.automatic.advice import next_step
from d3hr.automatic.choosing import choose_set
from d3hr.evaluation.choice import REAL, Choice, Trial
from tests.automatic.test_choosing import brief, contents, write_digits

__all__ = ["brief"]


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_the_printed_calls_make_the_same_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    on_disk = load_images(write_digits(tmp_path / "digits"))
    pixels, labels = on_disk.tensors()
    images = load_images((pixels, labels), class_names=on_disk.class_names)
    outcome = choose_set(images, None, "set", ipc=2, minutes=10)
    for trial in outcome.choice.trials:
        assert trial.command.startswith("d3hr.")
        eval(trial.command.replace("out='set'", f"out={trial.name!r}"), {"d3hr": d3hr, "images": images})
        assert contents(tmp_path / trial.name) == contents(outcome.folder / "sets" / f"{trial.name}-0")
    assert "arrays" in (tmp_path / "set-report.html").read_text()


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_next_step_is_a_call_where_images_are_in_memory(tmp_path: Path, in_memory: bool) -> None:
    folder = write_digits(tmp_path / "digits")
    images = load_images(folder)
    if in_memory:
        images = load_images(images.tensors())
    trial = Trial(name=REAL, method="random_real", command="", accuracies=(0.5,), minutes=1)
    choice = Choice(
        source=images.source, ipc=2, labels="hard", training_images=96, held_out=1000, student="convnet3", image_size=8, steps=10,
        confidence=0.95, trials=(trial,), chosen=REAL, full_accuracy=0.9, minutes=1, budget_minutes=1,
    )  # fmt: skip
    said = next_step(choice, images, tmp_path, "SET")
    expected = "d3hr.distill(images, ipc=4, out='SET-4')" if in_memory else f"d3hr distill {folder} --ipc 4 --out SET-4"
    assert said.endswith(expected)
