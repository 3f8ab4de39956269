"""``d3hr recipe``: an experiment of the paper with one command."""

from pathlib import Path

from d3hr.cli.options import RUNNING, Running
from d3hr.cli.output import Result
from d3hr.progress import OnTerminal


def recipe(
    file: str,
    *,
    out: str,
    ipc: int,
    data: str | None = None,
    test: str | None = None,
    prior: str | None = None,
    teacher: str | None = None,
    device: str | None = None,
    running: Running = RUNNING,
) -> Result:
    """Fit, distil and evaluate as a recipe file says, such as recipes/cifar10.yaml; finished steps are not repeated.

    Args:
        file: the recipe, a YAML file
        out: folder to write; other numbers of images per class share its prior and statistics
        ipc: images per class, one of those that the recipe lists
        data: folder or Hub id of the training images, instead of the recipe's, with the same columns and class names
        test: the test images likewise, by default those of --data
        prior: folder or Hub id of the pretrained prior, instead of the recipe's
        teacher: folder of a teacher (d3hr train-teacher): students learn from its soft labels, by the paper's protocol
        device: where everything is computed: cpu, cuda, cuda:1, mps; by default on the fastest there is
        running: where the work of each step after the fit runs
    """
    from d3hr.recipes.recipe import read_recipe
    from d3hr.recipes.running import run_recipe

    execution = running.chosen()
    comparison = run_recipe(
        read_recipe(file),
        out,
        ipc=ipc,
        execution=execution,
        progress=OnTerminal(),
        data=data,
        test=test,
        prior=prior,
        teacher=teacher,
        device=device,
    )
    folder = Path(out) / f"ipc{ipc}-evaluation"
    text = f"{comparison.as_text()}\nThe set is in {out}/ipc{ipc}, the table in {folder}/results.json."
    return Result(text, {"out": out, **comparison.as_values()}, folder)
