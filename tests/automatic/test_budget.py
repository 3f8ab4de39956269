from pathlib import Path

import pytest

from d3hr.automatic.budget import Budget
from d3hr.errors import SettingsError
from d3hr.progress import Bar


class Clock:
    """Tells the time that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_time_passes_and_finished_work_of_earlier_runs_counts(tmp_path: Path) -> None:
    clock = Clock()
    budget = Budget(2, tmp_path / "spent.json", spent=5, clock=clock)
    assert (budget.spent, budget.left) == (5, 115)
    with budget.on("way"):
        clock.now += 30
    with pytest.raises(KeyboardInterrupt), budget.on("way"):
        clock.now += 10
        raise KeyboardInterrupt
    assert (budget.spent, budget.spent_on("way")) == (45, 30)

    again = Budget(2, tmp_path / "spent.json", clock=clock)
    assert (again.spent, again.spent_on("way")) == (30, 30)  # what was lost costs nothing
    with again.on("way"):
        clock.now += 100
    assert (again.left, again.spent_on("way")) == (-10, 130)


def test_the_bar_is_one_of_time(tmp_path: Path) -> None:
    """Whatever work inside counts, the bar moves by seconds, with those that are left of the budget."""
    clock, seen = Clock(), list[tuple[float, str, float | None]]()

    class Seen(Bar):
        def update(self, completed: float, *, total: float | None = None, note: str = "", left: float | None = None) -> None:
            seen.append((completed, note, left))

    budget = Budget(1, tmp_path / "spent.json", clock=clock)
    with budget.on("way", Seen(), "way, set 1") as progress, progress.bar("steps", 1000) as bar:
        clock.now += 20
        bar.update(3)
        clock.now += 50
    assert seen == [(0, "way, set 1", 60), (20, "way, set 1", 40), (70, "way, set 1", 0)]


def test_too_few_minutes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="minutes is too short"):
        Budget(0.1, tmp_path / "spent.json")
