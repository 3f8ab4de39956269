"""The report of a set: its pictures, its accuracies and its diagnosis on one page."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from d3hr.data.dataset import ImageData
from d3hr.diagnostics.result import Diagnosis
from d3hr.errors import ClassMismatch, OutputError
from d3hr.evaluation.choice import Choice
from d3hr.evaluation.results import ResultRow, own_name, read_results
from d3hr.fileio.names import class_folders
from d3hr.formatting import flat, percent, size_in_words
from d3hr.report.charts import COLOURS, NORMALITY_COLOURS, accuracy_chart, normality_chart
from d3hr.report.maps import PALETTE, confusion_of, drawing_of
from d3hr.report.page import write_page
from d3hr.report.pictures import nearest_pairs, sheet_of
from d3hr.report.results import ResultGroup, group_rows, row_title, summary
from d3hr.sets.distilled_set import open_set
from d3hr.sets.image_set import ImageSet, pictures_of

MARKER = '<meta name="generator" content="d3hr report">'
"""Marks a page as a report, which another report may replace."""
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


def write_report(
    path: str, out: Path, *, evaluations: Sequence[Path] = (), diagnosis: Path | None = None, choice: Choice | None = None
) -> list[str]:
    """Write the report of a set, or any source of images, as one self-contained page, and return what its results say in sentences.

    Evaluations are folders with ``results.json``; the diagnosis is a folder with ``diagnosis.json`` and the nearest real images. A page
    about a set that was chosen opens with the answer of its choice.
    """
    require_replaceable(out)
    subject = open_set(path)
    rows = read_results(evaluations)
    figures = Diagnosis.read(diagnosis) if diagnosis else None
    _require_same_classes(subject, rows, figures, diagnosis)
    own = own_row(subject, rows)
    groups = [_group(subject, results) for results in group_rows(rows)]
    sheet = sheet_of(pictures_of(subject))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_page(
        out,
        "report.html",
        subject=subject,
        quoted=shlex.quote(path),
        tiles=_tiles(subject, own, sum(sheet.counts.values())),
        sheet=sheet,
        pairs=nearest_pairs(sheet, diagnosis / "nearest", class_folders(subject.class_names)) if diagnosis else {},
        groups=groups,
        protocols=_protocols([group["results"] for group in groups]),
        own=own,
        choice=choice,
        diagnosis=figures,
        normality_chart=normality_chart(figures.normality) if figures and figures.normality and figures.normality.levels else None,
        normality_colours=NORMALITY_COLOURS,
        drawing=drawing_of(figures.embedding, subject.class_names) if figures and figures.embedding else None,
        classes=_class_table(subject, own, figures),
        confusion=confusion_of(own.class_names, own.confusion) if own and own.class_names and own.confusion else None,
        origin=_origin(subject, evaluations, diagnosis, figures),
    )
    return [*([choice.headline, *choice.sentences] if choice else []), *(sentence for group in groups for sentence in group["summary"])]


def own_row(subject: ImageSet, rows: Iterable[ResultRow]) -> ResultRow | None:
    """Return the row of a set's method, IPC and packing; of several, that of the set itself, with the most details, then the first."""
    own = [row for row in rows if (row.method, row.ipc, row.pack) == (subject.method, subject.ipc, subject.pack)]
    name = own_name(subject.method) or subject.method
    return max(own, key=lambda row: (row.name == name, row.per_class is not None, row.confusion is not None, row.seeds), default=None)


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


def _require_same_classes(subject: ImageSet, rows: Sequence[ResultRow], diagnosis: Diagnosis | None, folder: Path | None) -> None:
    """Refuse results and a diagnosis that name classes which the set does not have."""
    named = [(f"the results of {row_title(row)}", row.named_classes) for row in rows]
    if diagnosis:
        named.append((f"the diagnosis {folder}", set(diagnosis.per_class)))
    for what, names in named:
        if not names <= set(subject.class_names):
            raise ClassMismatch(what, sorted(names), f"the set {subject.source}", subject.class_names)


def _tiles(subject: ImageSet, own: ResultRow | None, images: int) -> list[tuple[str, str]]:
    """Return the figures at the top of the page, each with its name."""
    tiles = [(f"{images:,}", "images"), (f"{len(subject.class_names):,}", "classes")]
    tiles.append((f"{subject.image_size} px", "a side"))
    if subject.pack > 1:
        tiles.append((f"{subject.pack**2}", f"images per stored image, {pictures_of(subject).image_size} px a side"))
    if subject.manifest:
        manifest = subject.manifest
        real = sum(entry.real_images or 0 for entry in manifest.classes)
        if manifest.storage.get("images"):
            tiles.append((size_in_words(manifest.storage["images"]), "of PNG files"))
        if manifest.real_images:
            tiles.append((f"{manifest.real_images:,}", "images are real ones, chosen"))
        elif manifest.about_real_images:
            tiles.append((f"{images:,}", "images start from real ones"))
        if real and images:
            tiles.append((f"1 / {real / images:,.0f}", f"of {real:,} real images"))
    if own is not None:
        tiles.append((f"{percent(own.accuracy_mean)} %", f"test accuracy, {own.student}, {own.labels} labels"))
    return tiles


def _group(subject: ImageSet, results: ResultGroup) -> dict[str, Any]:
    """Return rows that may be compared with their chart, its legend, a summary if the set is among them, and what their table shows.

    Methods without a colour of their own take those of the palette that no usual method has.
    """
    more = iter(PALETTE[2:8] * len(results.rows))
    titles = [row_title(row) for row in results.rows]
    colours: dict[str, str] = {}
    for title, row in zip(titles, results.rows, strict=True):
        if title not in colours:
            usual = COLOURS.get(row.method)
            colours[title] = next(more) if usual is None or usual in colours.values() else usual
    own = own_row(subject, results.rows)
    optional = ("distillation_std", "training_std", "best_epoch_mean", "top5_mean", "hlr", "ior", "lrs")
    return {
        "results": results,
        "chart": accuracy_chart(results.rows, titles, colours=colours),
        "legend": colours,
        "columns": {name for name in optional if any(getattr(row, name) is not None for row in results.rows)},
        "best": {row.ipc: max(other.accuracy_mean for other in results.rows if other.ipc == row.ipc) for row in results.rows},
        "own": own,
        "summary": summary(results, own) if own else [],
    }


def _protocols(groups: Sequence[ResultGroup]) -> dict[str, Any]:
    """Return every protocol that was run as a column, and all their fields."""
    columns = [{"title": group.title, "ipcs": ipcs, "settings": settings} for group in groups for ipcs, settings in group.protocols]
    return {"columns": columns, "fields": list(dict.fromkeys(name for column in columns for name in column["settings"]))}


def _class_table(subject: ImageSet, own: ResultRow | None, diagnosis: Diagnosis | None) -> dict[str, Any]:
    """Return the columns that have a figure for some class, and a row for each class."""
    accuracy = (own.per_class if own else None) or {}
    rows = []
    for name in subject.class_names:
        figures = diagnosis.per_class.get(name) if diagnosis else None
        rows.append((name, {"accuracy": accuracy.get(name), **(asdict(figures) if figures else {})}))
    columns = {key: title for key, title in _CLASS_COLUMNS.items() if any(values.get(key) is not None for _, values in rows)}
    return {"columns": columns, "rows": rows if columns else []}


def _origin(
    subject: ImageSet, evaluations: Iterable[Path], folder: Path | None, diagnosis: Diagnosis | None
) -> dict[str, list[tuple[str, str]]]:
    """Return how the set and the page were made, as pairs of name and value under headings."""
    page = [("set", subject.source), *(("evaluation", str(folder)) for folder in evaluations)]
    if folder and diagnosis:
        page.append(("diagnosis", str(folder)))
        page += [(f"diagnosis, {name}", value) for name, value in flat(diagnosis.model_dump()["set"]) if value != "none"]
        page += [(f"diagnosis, real images {name}", value) for name, value in flat(asdict(diagnosis.data)) if value != "none"]
    page.append(("written by", f"d3hr {version('d3hr')}"))
    manifest = subject.manifest
    groups: dict[str, list[tuple[str, str]]] = {}
    if manifest is not None:
        groups = {
            "Settings": flat({**manifest.model_dump(include={"method", "ipc", "pack"}), **manifest.settings}),
            "Real images": flat(manifest.data.model_dump()),
            "Prior": flat(manifest.prior.model_dump()),
            "Storage": [(name.replace("_", " "), size_in_words(count)) for name, count in manifest.storage.items()],
            "Versions": flat(manifest.versions),
        }
    elif isinstance(subject, ImageData):
        groups = {"Images": flat(subject.record.model_dump())}
    return {title: facts for title, facts in {**groups, "This page": page}.items() if facts}
