"""Every recipe planned: the facts it states of its data set, a small prior of random weights in DiT-XL/2's layout."""

from pathlib import Path

import pytest

from d3hr import Prior
from d3hr.__main__ import main
from d3hr.errors import SettingsError
from d3hr.evaluation.protocols import protocol_named
from d3hr.recipes.planning import ROWS, plan_recipe
from d3hr.recipes.recipe import DistillSection, read_recipe
from tests.recipes.test_recipe import FOLDER, ONE_QUICKLY
from tests.recipes.test_running import BRIEF, IPC, dit, scaled_down

__all__ = ["dit"]  # a fixture


@pytest.mark.slow
@pytest.mark.parametrize("file", ONE_QUICKLY)
def test_a_recipe_is_planned_from_its_facts(file: Path, dit: Path) -> None:
    """By hand, at guidance 4 and level 2: every real image is encoded once and makes 2 x 2 calls, every distilled one 2 x 2 and a decoding;
    a step of the fit takes its batch; nothing is read from the data set."""
    recipe = scaled_down(read_recipe(file))
    planned = plan_recipe(recipe, ipc=IPC, prior=Prior.from_pretrained(dit), devices=2)
    calls = {stage.name: stage.calls for stage in planned.stages}
    real, distilled = recipe.data.train_images, recipe.data.classes * IPC
    assert (calls["encode"], calls["invert"], calls["denoise"]) == (real, 4 * real, 5 * distilled)
    assert (planned.images, planned.classes, planned.distilled) == (real, recipe.data.classes, distilled)
    assert planned.statistics_bytes == recipe.data.classes * 2 * 64 * 4
    if recipe.fit is None:
        assert "fit" not in calls
    else:
        assert calls["fit"] == -(-recipe.fit.epochs * real // 4) * 4
    evaluate = next(stage for stage in planned.stages if stage.name == "evaluate")
    batch = min(protocol_named(BRIEF).batch_size, distilled)
    assert evaluate.calls == pytest.approx(ROWS * 2 * (batch + recipe.data.test_images), rel=0.1)
    assert all(stage.seconds_shared <= stage.seconds for stage in planned.stages)


@pytest.mark.slow
def test_fit_and_inversion_run_at_one_speed(dit: Path) -> None:
    """The fit's seconds a FLOP are those of the inversion; gradient checkpointing is worth four forward passes of all images."""
    recipe = scaled_down(read_recipe(FOLDER / "cifar10.yaml"))
    planned = plan_recipe(recipe, ipc=IPC, prior=Prior.from_pretrained(dit))
    stages = {stage.name: stage for stage in planned.stages}
    assert stages["fit"].flops / stages["fit"].calls == pytest.approx(4 * stages["invert"].flops / stages["invert"].calls)
    assert stages["fit"].seconds / stages["fit"].flops == pytest.approx(stages["invert"].seconds / stages["invert"].flops)


@pytest.mark.slow
def test_a_fit_is_planned_without_inversion(dit: Path) -> None:
    """With forward noise or clean latents nothing is inverted, so the fit takes the speed of the stage that denoises and decodes."""
    recipe = scaled_down(read_recipe(FOLDER / "cifar10.yaml"))
    for options in ({"forward_process": "forward_noise", "level": 2}, {"level": 0}):
        section = DistillSection.model_validate({"steps": 4, "num_candidates": 10, **options})
        planned = plan_recipe(recipe.model_copy(update={"distill": section}), ipc=IPC, prior=Prior.from_pretrained(dit))
        stages = {stage.name: stage for stage in planned.stages}
        assert stages["fit"].seconds / stages["fit"].flops == pytest.approx(stages["denoise"].seconds / stages["denoise"].flops)
        assert "'denoise'" in planned.notes[-1]


def test_what_cannot_be_planned_is_refused(dit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = scaled_down(read_recipe(FOLDER / "imagenette.yaml"))
    with pytest.raises(SettingsError, match="--ipc 3"):
        plan_recipe(recipe, ipc=3)
    with pytest.raises(SettingsError, match="facebook/DiT-XL-2-256"):
        plan_recipe(recipe.model_copy(update={"prior": "someone/else"}), ipc=IPC)
    file = str(FOLDER / "imagenette.yaml")
    assert main(["plan", file, "--level", "3"]) == 2
    assert "change a copy of the file" in capsys.readouterr().err
    assert main(["plan", "digits"]) == 2
    assert "no --prior" in capsys.readouterr().err
