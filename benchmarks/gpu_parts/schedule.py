"""Runs the parts in another process, each within its share of the time, and makes a table of what they kept.

Needs nothing but the standard library: what else is missing may have come along as wheels.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRACE = 20.0
"""Seconds after its time at which a part that hangs is ended: one measurement may take so long, a part looks at the clock between two."""


@dataclass(frozen=True)
class Part:
    """What a part may take.

    Attributes:
        share: share of all the time; None is what the others leave.
        least: seconds that it needs in full size, below which it is skipped.
    """

    share: float | None
    least: float


PARTS: dict[str, Part] = {
    "agreement": Part(0.12, 10),
    "peak": Part(0.03, 3),
    "inversion": Part(0.25, 20),
    "rates": Part(0.15, 15),
    "fit": Part(None, 40),
    "sets": Part(0.20, 30),
}
"""The parts, in their order."""


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        out: folder of the files of its parts.
        parts: names of the parts to run, in their order.
        seconds: for everything.
        full: whether sizes are full; small ones need no least time.
    """

    out: Path
    parts: Sequence[str]
    seconds: float
    full: bool

    def clear(self) -> None:
        """Make the folder, without the files of an earlier run."""
        self.out.mkdir(parents=True, exist_ok=True)
        for name in self.parts:
            self.file(name).unlink(missing_ok=True)

    def file(self, part: str) -> Path:
        """Return the file of a part."""
        return self.out / f"{part}.json"

    def kept(self, part: str) -> dict[str, Any]:
        """Return what the file of a part holds; nothing, before the part has begun."""
        file = self.file(part)
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return content

    def keep(self, part: str, content: Mapping[str, Any]) -> None:
        """Write the file of a part, whole or not at all."""
        write_json(self.file(part), content)

    def limit(self, part: str, left: float) -> float:
        """Return the seconds that a part may take, of those that are ``left`` for it and the parts after it."""
        share = PARTS[part].share
        if share is not None:
            return min(share * self.seconds, left)
        later = self.parts[list(self.parts).index(part) + 1 :]
        return left - sum(PARTS[name].share or 0.0 for name in later) * self.seconds

    def too_short(self, part: str, limit: float) -> bool:
        """Return whether a part is not worth beginning."""
        return limit < (PARTS[part].least if self.full else 0.0)


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(file)


def supervise(plan: Plan, start: Callable[[Sequence[str]], subprocess.Popen[bytes]], until: float, grace: float = GRACE) -> None:
    """Have a process run the parts, and another one those after a part in which it ended or hung.

    Args:
        start: starts a process that runs some parts, each of which is ``running`` in its file until it is finished.
        until: time (of ``time.time``) at which everything ends.
        grace: seconds that a part may take beyond its time.
    """
    todo = list(plan.parts)
    while todo:
        process = start(todo)
        try:
            why = _watched(plan, todo, process, until, grace)
        finally:
            process.kill()
            process.wait()
        todo = [name for name in todo if plan.kept(name).get("state") in (None, "running")]
        if todo:  # the first of them is that in which the process ended, or which it did not come to
            plan.keep(todo[0], {**plan.kept(todo[0]), "state": "stopped", "error": why})
            todo = todo[1:]


def _watched(plan: Plan, parts: Sequence[str], process: subprocess.Popen[bytes], until: float, grace: float) -> str:
    """Wait for the end of a process, or for a part that takes too long, and say which it was."""
    while True:
        try:
            return f"its process ended with code {process.wait(0.2)}"
        except subprocess.TimeoutExpired:
            running = [plan.kept(name) for name in parts if plan.kept(name).get("state") == "running"]
            if any(time.time() > part["ends"] + grace for part in running):
                return "it took much longer than its time"
            if time.time() > until + grace:
                return "the time was over"


def summarise(plan: Plan) -> str:
    """Write ``summary.json`` and return the table: a line for each part and, below it, one for each measurement."""
    kept = {name: plan.kept(name) for name in plan.parts}
    machine = plan.out / "machine.json"
    about = json.loads(machine.read_text(encoding="utf-8")) if machine.is_file() else {}
    write_json(plan.out / "summary.json", {"machine": about, "parts": kept})
    lines = [", ".join(f"{name} {value}" for name, value in about.items())]
    for name, part in kept.items():
        lines += [f"\n{name}: {part.get('state', 'not begun')}, {part.get('seconds', 0):.0f} s{_reason(part)}"]
        lines += [f"  {measurement:44s} {_in_words(figures)}" for measurement, figures in part.get("figures", {}).items()]
    return "\n".join(lines)


def _reason(part: Mapping[str, Any]) -> str:
    return f" ({part['error']})" if part.get("error") else ""


def _in_words(figures: Mapping[str, Any]) -> str:
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in figures.items()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())
