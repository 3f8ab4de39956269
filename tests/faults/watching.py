"""Watches which files Python opens, so that a test can show that one was left alone."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_OPENED: list[str] | None = None


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if _OPENED is not None and event == "open" and isinstance(arguments[0], str | bytes):
        _OPENED.append(os.fsdecode(arguments[0]))


sys.addaudithook(_record)


@contextmanager
def record_opened_files() -> Iterator[list[str]]:
    """Yield a list that grows by the path of every file opened meanwhile."""
    global _OPENED
    paths: list[str] = []
    _OPENED = paths
    try:
        yield paths
    finally:
        _OPENED = None


def within(paths: list[str], folder: Path) -> list[str]:
    """Return which of ``paths`` really lie below ``folder``."""
    real = os.path.realpath(folder) + os.sep
    return [path for path in paths if os.path.realpath(path).startswith(real)]
