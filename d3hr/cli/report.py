"""``d3hr report``: one page to look at."""

from collections.abc import Sequence
from pathlib import Path

from d3hr.cli.output import Result, evaluation_folders
from d3hr.fileio.names import sibling


def report(distilled: str, *, evaluation: Sequence[str] = (), diagnosis: str | None = None, out: str | None = None) -> Result:
    """Write one self-contained page about a set: its pictures, its accuracy next to the baselines', its diagnosis, and how it was made.

    Args:
        distilled: a distilled set, or a folder of class folders that another tool made
        evaluation: folder written by 'd3hr evaluate' or 'd3hr compare', by default DISTILLED-evaluation; give the flag again for more
        diagnosis: folder written by 'd3hr diagnose', by default DISTILLED-diagnosis
        out: file to write, by default DISTILLED-report.html; a report that is already there is replaced
    """
    from d3hr.evaluation.choice import FILE, Choice
    from d3hr.report.report import write_report

    evaluations, diagnosed = evaluation_folders(evaluation, distilled), Path(diagnosis) if diagnosis else None
    if not diagnosed and (folder := sibling(distilled, "-diagnosis")).joinpath("diagnosis.json").is_file():
        diagnosed = folder
    file = Path(out) if out else sibling(distilled, "-report.html")
    chosen = sibling(distilled, "-choice")
    choice = Choice.read(chosen) if (chosen / FILE).is_file() else None
    if choice and not evaluations and (chosen / "test" / "results.json").is_file():
        evaluations = [chosen / "test"]
    sentences = write_report(distilled, file, evaluations=evaluations, diagnosis=diagnosed, choice=choice)
    values = {
        "out": str(file),
        "evaluations": [str(folder) for folder in evaluations],
        "diagnosis": str(diagnosed) if diagnosed else None,
        "headline": sentences,
    }
    return Result("\n".join([*sentences, f"Open {file}."]), values)
