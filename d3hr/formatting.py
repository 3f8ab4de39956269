"""Settings and sizes in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Return nested settings as names with dots and values in words."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found += flat(value, f"{before}{name}.")
        else:
            found.append((f"{before}{name}", in_words(value)))
    return found


def in_words(value: Any) -> str:
    """Return a setting for people: yes, no, none, lists with commas."""
    if value is None or value in ([], (), {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(in_words(part) for part in value)
    return str(value)


def size_in_words(count: int, *, binary: bool = False) -> str:
    """Return bytes with a decimal unit, ``12.3 kB``, as is usual for files; or a binary one, ``1.2 GiB``, as is usual for memory."""
    base, units = (1024, ["B", "KiB", "MiB", "GiB", "TiB"]) if binary else (1000, ["B", "kB", "MB", "GB"])
    size = float(count)
    while size >= base and len(units) > 1:
        size, units = size / base, units[1:]
    return f"{count} B" if units[0] == "B" else f"{size:,.1f} {units[0]}"


def time_in_words(seconds: float) -> str:
    """Return a duration in a unit that suits its length: ``0.2 s``, ``42 s``, ``3.5 min``, ``7.1 h``, ``12.0 days``."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.{1 if seconds / size < 10 else 0}f} {unit}"
    return f"{seconds / 86400:,.1f} days"
