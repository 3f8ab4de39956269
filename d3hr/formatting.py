"""Figures, sizes, settings, names, tables and images as text."""

import base64
import io
import math
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), in which names are compared: é as one character, not as e with an accent."""
    return unicodedata.normalize("NFC", name)


def percent(share: float | None) -> str:
    """Return a share in percent, without the unit: ``93.2``; nothing for None."""
    return "" if share is None else f"{100 * share:.1f}"


def number(value: float | None, form: str = ".4g") -> str:
    """Return a figure in a format of Python's; a dash where it is unknown or not finite."""
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Container[int] = (),
    title: str | None = None,
    totals: Sequence[str] = (),
) -> str:
    """Return rows as aligned text under their headings.

    Args:
        right: positions of the columns that are aligned at the right.
        title: a line above the table, whose headings then have a rule below them.
        totals: the cells of a last row, below a rule.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    style: dict[str, Any] = {"box": box.SIMPLE_HEAD} if title else {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0)}
    drawn = Table(title=title, title_justify="left", show_footer=bool(totals), **style)
    for place, heading in enumerate(headings):
        drawn.add_column(heading, justify="right" if place in right else "left", footer=totals[place] if totals else "", no_wrap=True)
    for row in rows:
        drawn.add_row(*row)
    buffer = io.StringIO()
    Console(file=buffer, width=10_000, markup=False, emoji=False, highlight=False).print(drawn)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().splitlines())


def flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Return nested settings as pairs of a dotted name and the value in words."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            pairs += flat(value, f"{before}{name}.")
        else:
            pairs.append((f"{before}{name}", in_words(value)))
    return pairs


def in_words(value: Any) -> str:
    """Return a setting for people: yes, no, none, lists with commas."""
    if value is None or value in ([], (), {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(in_words(part) for part in value)
    return str(value)


def size_in_words(count: float, *, binary: bool = False) -> str:
    """Return bytes with a decimal unit, ``12.3 kB``, as is usual for files; or a binary one, ``1.2 GiB``, as is usual for memory."""
    base, units = (1024, ["B", "KiB", "MiB", "GiB", "TiB"]) if binary else (1000, ["B", "kB", "MB", "GB", "TB", "PB"])
    size = float(count)
    while size >= base and len(units) > 1:
        size, units = size / base, units[1:]
    return f"{count:.0f} B" if units[0] == "B" else f"{size:,.1f} {units[0]}"


def time_in_words(seconds: float) -> str:
    """Return a duration in a unit that suits its length: ``0.2 s``, ``42 s``, ``3.5 min``, ``7.1 h``, ``12.0 days``."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.{1 if seconds / size < 10 else 0}f} {unit}"
    return f"{seconds / 86400:,.1f} days"


def data_uri(png: bytes) -> str:
    """Return a PNG as the text of a link that contains it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
