"""``d3hr demo``: the whole way on real digits."""

from pathlib import Path

from d3hr.cli.output import Result
from d3hr.progress import OnTerminal


def demo(*, out: str = "d3hr-demo", seed: int = 0) -> Result:
    """Show the whole way on real handwritten digits: fit a prior, distil IPC 1 and 10, measure against baselines, write one page.

    Args:
        out: folder to write
        seed: seed of everything
    """
    from d3hr.recipes.demo import run_demo

    return Result(*run_demo(Path(out), seed=seed, progress=OnTerminal()), Path(out))
