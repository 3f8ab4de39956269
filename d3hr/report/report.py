"""The report of a set: its pictures, its accuracies and its diagnosis on one page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from d3hr.data.dataset import ImageData
from d3hr.diagnostics.result import Diagnosis
from d3hr.errors import ClassMismatch, OutputError
from d3hr.evaluation.results import ResultRow, read_results
from d3hr.fileio.names import class_folders
from d3hr.formatting import flat, percent, size_in_words
from d3hr.report.figures import COLOURS, NORMALITY_COLOURS, Confusion, accuracy_chart, confusion_of, drawing_of, normality_chart
from d3hr.report.page import write_page
from d3hr.report.pictures import nearest_pairs, sheet_of
from d3hr.report.results import ResultGroup, group_rows, row_title, summary
from d3hr.sets.distilled_set import open_set
from d3hr.sets.image_set import ImageSet

MARKER = '<meta name="generator" content="d3hr report">'
"""By this a page is known as a report, which another report may replace."""
_MORE_COLOURS = ("#5b9a6f", "#8f6bb8", "#c99a2e", "#c2588b", "#3aa6a0", "#8a6d5a")
_CLASS_COLUMNS = {
    "accuracy": "accuracy, %",
    "mmd": "MMD",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "diversity": "diversity",
    "diversity_real": "diversity, real",
    "nearest_ratio": "nearest ratio",
}


def own_row(subject: ImageSet, rows: Iterable[ResultRow]) -> ResultRow | None:
    """Return the row of results about a set: that of its method and IPC whose settings, as far as it states them, are the set's.

    Of several, that which states most of the settings; then that which tells most; then the first.
    """
    known = json.loads(json.dumps(subject.manifest.settings if subject.manifest else {}))
    stated = [(row, {name: value for name, value in (row.settings or {}).items() if name in known and name != "seed"}) for row in rows]
    fitting = [
        (len(settings), row.per_class is not None, row.confusion is not None, row.seeds, row)
        for row, settings in stated
        if (row.method, row.ipc) == (subject.method, subject.ipc) and all(known[name] == value for name, value in settings.items())
    ]
    return max(fitting, key=lambda entry: entry[:-1], default=(None,))[-1]


def write_report(path: str, out: Path, *, evaluations: Sequence[Path] = (), diagnosis: Path | None = None) -> list[str]:
    """Write the report of a set as one self-contained page, and return its headline.

    Args:
        path: a distilled set, or any source of images.
        out: the file to write; an earlier report there is replaced.
        evaluations: folders with ``results.json``.
        diagnosis: folder with ``diagnosis.json`` and the nearest real images.

    Raises:
        OutputError: ``out`` is something else than a report.
        ResultsError: results or diagnosis are missing or damaged.
        ClassMismatch: results or diagnosis speak of other classes.
    """
    require_replaceable(out)
    subject = open_set(path)
    rows = read_results(evaluations)
    found = Diagnosis.read(diagnosis) if diagnosis else None
    _require_same_classes(subject, rows, found, diagnosis)
    own = own_row(subject, rows)
    groups = group_rows(rows)
    headline = _headline(subject, groups)
    sheet = sheet_of(subject)
    confusion = _confusion(own)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_page(
        out,
        "report.html",
        subject=subject,
        quoted=shlex.quote(path),
        headline=headline,
        tiles=_tiles(subject, own, sum(sheet.counts.values())),
        sheet=sheet,
        pairs=nearest_pairs(sheet, diagnosis / "nearest", class_folders(subject.class_names)) if diagnosis else {},
        groups=[_chart(subject, group) for group in groups],
        protocols=_protocols(groups),
        own=own,
        diagnosis=found,
        normality_chart=normality_chart(found.normality) if found and found.normality and found.normality.levels else None,
        normality_colours=NORMALITY_COLOURS,
        drawing=drawing_of(found.embedding, subject.class_names) if found and found.embedding else None,
        classes=_class_table(subject, own, found),
        confusion=confusion,
        origin=_origin(subject, evaluations, diagnosis, found),
    )
    return [sentence for _, sentences in headline for sentence in sentences]


def require_replaceable(out: Path) -> None:
    """Raise :class:`OutputError` unless ``out`` is free or holds an earlier report."""
    if not out.exists() and not out.is_symlink():
        return
    if out.is_file() and MARKER.encode() in out.read_bytes()[:4096]:
        return
    raise OutputError(
        f"{out} exists and is not a report of d3hr.",
        found="a folder" if out.is_dir() else "another file",
        hint="choose another --out, or move it away.",
    )


def _require_same_classes(subject: ImageSet, rows: Sequence[ResultRow], found: Diagnosis | None, folder: Path | None) -> None:
    known = set(subject.class_names)
    for row in rows:
        if not row.known_classes <= known:
            raise ClassMismatch(
                f"the results of {row_title(row)}", sorted(row.known_classes), f"the set {subject.source}", subject.class_names
            )
    if found and not set(found.per_class) <= known:
        raise ClassMismatch(f"the diagnosis {folder}", sorted(found.per_class), f"the set {subject.source}", subject.class_names)


def _headline(subject: ImageSet, groups: Sequence[ResultGroup]) -> list[tuple[ResultGroup, list[str]]]:
    """Return the verdicts of each comparison that the set takes part in."""
    said = []
    for group in groups:
        own = own_row(subject, group.rows)
        if own is not None:
            said.append((group, summary(group, own)))
    return said


def _tiles(subject: ImageSet, own: ResultRow | None, images: int) -> list[tuple[str, str]]:
    """Return the few figures to see first, each with its name."""
    tiles = [(f"{images:,}", "images"), (f"{len(subject.class_names):,}", "classes")]
    tiles.append((f"{subject.image_size} px", "a side"))
    if subject.manifest:
        manifest = subject.manifest
        real = sum(entry.real_images or 0 for entry in manifest.classes)
        if manifest.storage.get("images"):
            tiles.append((size_in_words(manifest.storage["images"]), "of PNG files"))
        if real and images:
            tiles.append((f"1 / {real / images:,.0f}", f"of {real:,} real images"))
    if own is not None:
        tiles.append((f"{percent(own.accuracy_mean)} %", f"test accuracy, {own.student}, {own.labels} labels"))
    return tiles


def _chart(subject: ImageSet, group: ResultGroup) -> dict[str, Any]:
    """Return one comparison with its chart, its legend, and what its table needs to know."""
    more = iter(_MORE_COLOURS * len(group.rows))
    colours: dict[str, str] = {}
    for row in group.rows:
        if row_title(row) not in colours:
            usual = COLOURS.get(row.method)
            colours[row_title(row)] = next(more) if usual is None or usual in colours.values() else usual
    bars = [row.model_copy(update={"method": row_title(row)}) for row in group.rows]
    optional = ("distillation_std", "training_std", "best_epoch_mean", "top5_mean", "hlr", "ior", "lrs")
    return {
        "comparison": group,
        "chart": accuracy_chart(bars, colours=colours),
        "legend": colours,
        "columns": {name for name in optional if any(getattr(row, name) is not None for row in group.rows)},
        "best": {row.ipc: max(other.accuracy_mean for other in group.rows if other.ipc == row.ipc) for row in group.rows},
        "own": own_row(subject, group.rows),
    }


def _protocols(groups: Sequence[ResultGroup]) -> dict[str, Any]:
    """Return every protocol that was run as a column, and all their fields."""
    columns = [{"title": group.title, "ipcs": ipcs, "settings": settings} for group in groups for ipcs, settings in group.protocols]
    return {"columns": columns, "fields": list(dict.fromkeys(name for column in columns for name in column["settings"]))}


def _class_table(subject: ImageSet, own: ResultRow | None, found: Diagnosis | None) -> dict[str, Any]:
    """Return the columns that have a figure for some class, and a row for each class."""
    accuracy = (own.per_class if own else None) or {}
    rows = []
    for name in subject.class_names:
        figures = found.per_class.get(name) if found else None
        values = asdict(figures) if figures else {}
        rows.append((name, {"accuracy": accuracy.get(name), **values}))
    columns = {key: title for key, title in _CLASS_COLUMNS.items() if any(values.get(key) is not None for _, values in rows)}
    return {"columns": columns, "rows": rows if columns else []}


def _confusion(own: ResultRow | None) -> Confusion | None:
    if own is None or own.confusion is None or not own.class_names:
        return None
    return confusion_of(own.class_names, own.confusion)


def _origin(
    subject: ImageSet, evaluations: Iterable[Path], diagnosis: Path | None, found: Diagnosis | None
) -> dict[str, list[tuple[str, str]]]:
    """Return everything known about where the set and the page came from, as names and values under headings."""
    page = [("set", subject.source), *(("evaluation", str(folder)) for folder in evaluations)]
    if diagnosis and found:
        page.append(("diagnosis", str(diagnosis)))
        page += [(f"diagnosis, {name}", value) for name, value in flat(asdict(found.set)) if value != "none"]
        page += [(f"diagnosis, real images {name}", value) for name, value in flat(asdict(found.data)) if value != "none"]
    page.append(("written by", f"d3hr {version('d3hr')}"))
    manifest = subject.manifest
    groups: dict[str, list[tuple[str, str]]] = {}
    if manifest is not None:
        groups = {
            "Settings": flat({"method": manifest.method, "ipc": manifest.ipc, **manifest.settings}),
            "Real images": flat(manifest.data.model_dump()),
            "Prior": flat(manifest.prior.model_dump()),
            "Storage": [(name.replace("_", " "), size_in_words(count)) for name, count in manifest.storage.items()],
            "Versions": flat(manifest.versions),
        }
    elif isinstance(subject, ImageData):
        groups = {"Images": flat(subject.record.model_dump())}
    return {title: facts for title, facts in {**groups, "This page": page}.items() if facts}
