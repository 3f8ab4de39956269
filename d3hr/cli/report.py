"""``d3hr report``: one page to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from d3hr.cli.output import Result


def report(distilled: str, *, evaluation: Sequence[str] = (), diagnosis: str | None = None, out: str | None = None) -> Result:
    """Write one self-contained page about a set: its pictures, its accuracy beside the baselines, its diagnosis, and how it was made.

    Args:
        distilled: a distilled set, or a folder of class folders that another tool left
        evaluation: folder written by 'd3hr evaluate' or 'd3hr compare', by default DISTILLED-evaluation; give the flag again for more
        diagnosis: folder written by 'd3hr diagnose', by default DISTILLED-diagnosis
        out: file to write, by default DISTILLED-report.html; a report that is already there is replaced
    """
    from d3hr.report.report import write_report

    beside = _stem(distilled)
    evaluations = [Path(folder) for folder in evaluation] or _if_there(beside.with_name(beside.name + "-evaluation"), "results.json")
    diagnoses = [Path(diagnosis)] if diagnosis else _if_there(beside.with_name(beside.name + "-diagnosis"), "diagnosis.json")
    file = Path(out) if out else beside.with_name(beside.name + "-report.html")
    headline = write_report(distilled, file, evaluations=evaluations, diagnosis=diagnoses[0] if diagnoses else None)
    values = {
        "out": str(file),
        "evaluations": [str(folder) for folder in evaluations],
        "diagnosis": str(diagnoses[0]) if diagnoses else None,
        "headline": headline,
    }
    return Result("\n".join([*headline, f"Open {file}."]), values)


def _stem(distilled: str) -> Path:
    """Return the path that what stands beside a set is named after; a source that is no folder is named where the command runs."""
    folder = Path(distilled)
    if not folder.is_dir():
        return Path(folder.name or "set")
    return folder if folder.name not in ("", "..") else folder.resolve()


def _if_there(folder: Path, file: str) -> list[Path]:
    return [folder] if (folder / file).is_file() else []
