"""Sections of docs/results.md on what sets cost: time, memory and bytes."""

from __future__ import annotations

from benchmarks.harness import RESULTS
from benchmarks.report.page import DATA, Page, accuracy, files_of, percent, rows_of
from d3hr.fileio.atomic import read_json


def costs(page: Page) -> None:
    """Append time and memory of distillations, next to what was planned."""
    for data, title in DATA.items():
        if (file := RESULTS / f"{data}-cost.json").is_file():
            page.add(f"### {title}: time and memory, preset `gentle`, one thread")
            page.table(
                ["images", "seconds", "planned", "peak MiB", "planned", "checking", "encode, invert", "drawing", "share of inversion"],
                (
                    [
                        f"{int(count):,}",
                        f"{each['made']['seconds']:.0f}",
                        f"{each['planned']['seconds']:.0f}",
                        f"{each['made']['peak_mib']:,}",
                        f"{each['planned']['peak_mib']:,}",
                        *(
                            f"{sum(seconds for title, seconds in each['made']['stages'].items() if title.startswith(stage)):.0f} s"
                            for stage in ("checking", "inverting", "drawing")
                        ),
                        percent(each["share_of_inversion"]),
                    ]
                    for count, each in read_json(file)["figures"].items()
                ),
            )
            page.sources([file])


def storage(page: Page) -> None:
    """Append bytes and accuracy by the number of images per class."""
    for data, title in DATA.items():
        file, files = RESULTS / f"{data}-storage.json", files_of(data, "sizes", "validation")
        if not file.is_file() or not files:
            continue
        rows = {(row["name"], row["ipc"]): row for row in rows_of(files)}
        page.add(f"### {title}: bytes and accuracy")
        page.table(
            ["method", "IPC", "images", "statistics", "prior (for `expand`)", "accuracy %", "points per 10 KB of images"],
            (
                [
                    f"`{name}`",
                    ipc,
                    *(f"{bytes_of[part]:,}" for part in ("images", "statistics", "prior")),
                    accuracy(row),
                    f"{100 * row['accuracy_mean'] / (bytes_of['images'] / 10_000):.2f}",
                ]
                for name, sizes in read_json(file)["figures"].items()
                for ipc, bytes_of in sizes.items()
                if (row := rows.get((name, int(ipc))))
            ),
        )
        page.sources([file, *files])
