"""What a person sees of long work where there is no terminal, and how work inside other work moves the outer bar."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from rich.console import Console

from d3hr.prior.trainer import Trainer
from d3hr.progress import BY_DEFAULT, Bar, InSteps, OnTerminal, Progress, Within


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def off_terminal() -> tuple[OnTerminal, io.StringIO]:
    progress, output = OnTerminal(), io.StringIO()
    progress.console = Console(file=output, force_terminal=False, force_jupyter=False, width=200)
    return progress, output


def test_a_line_every_half_minute(clock: Clock) -> None:
    """With the time left, from the speed since the start; the units that an earlier run had done do not count as fast ones."""
    progress, output = off_terminal()
    with progress.bar("inverting images", 1000) as bar:
        bar.update(400)
        for second in range(1, 101):
            clock.now += 1
            bar.update(400 + 2 * second, note="ant")
    assert output.getvalue().splitlines() == [
        "inverting images: 460/1,000, 4.5 min left, ant",
        "inverting images: 520/1,000, 4.0 min left, ant",
        "inverting images: 580/1,000, 3.5 min left, ant",
        "inverting images: done in 1.7 min",
    ]


def test_the_work_may_know_the_time_left_better(clock: Clock) -> None:
    progress, output = off_terminal()
    with progress.bar("autoencoder", None) as bar:
        clock.now += 31
        bar.update(7, left=89.4)
    assert output.getvalue().splitlines() == ["autoencoder: 7, 89 s left", "autoencoder: done in 31 s"]


class Recorder(Progress, Bar):
    """Keeps what its bars are told."""

    def __init__(self) -> None:
        self.updates: list[tuple[float, float | None, float | None]] = []

    @contextmanager
    def bar(self, title: str, total: float | None) -> Iterator[Bar]:
        yield self

    def update(self, completed: float, *, total: float | None = None, note: str = "", left: float | None = None) -> None:
        self.updates.append((completed, total, left))


def test_bars_say_which_step_they_are() -> None:
    shown: list[str] = []

    class Titles(Progress):
        @contextmanager
        def bar(self, title: str, total: float | None) -> Iterator[Bar]:
            shown.append(title)
            yield Bar()

    progress = InSteps(Titles(), ["inverting", "drawing"])
    for title in ("drawing", "decoding", "inverting"):
        with progress.bar(title, 1):
            pass
    assert shown == ["step 2 of 2, drawing", "decoding", "step 1 of 2, inverting"]


def test_work_inside_other_work_moves_its_bar() -> None:
    """The second of four trainings, at the first of two of its stages, halfway."""
    outer = Recorder()
    with Within(outer, 1, 1).bar("training", 2) as stages, Within(stages, 0, 1).bar("steps", 50) as steps:
        steps.update(25)
        stages.update(2)
    assert [completed for completed, _, _ in outer.updates] == [1.25, 2.0]


def test_a_training_of_limited_time_knows_what_is_left(clock: Clock) -> None:
    """Ten seconds a step and one minute in all: six steps, whatever the limit of steps."""
    network = torch.nn.Linear(1, 1)

    def load(step: int) -> torch.Tensor:
        return torch.ones(1, 1)

    def loss(batch: torch.Tensor, step: int) -> torch.Tensor:
        clock.now += 10
        return torch.as_tensor(network(batch).square().sum())

    recorder = Recorder()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    Trainer("t", network, optimiser, 10**9, load, loss, lambda step, fraction: 0.1, max_seconds=60.0, progress=recorder).run()
    assert [completed for completed, _, _ in recorder.updates] == [1, 2, 3, 4, 5, 6]
    assert [total for _, total, _ in recorder.updates] == [6] * 6
    assert [left for _, _, left in recorder.updates] == pytest.approx([50, 40, 30, 20, 10, 0])


def test_library_functions_report_nothing_outside_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    with BY_DEFAULT.bar("work", 2) as bar:
        bar.update(1)
        BY_DEFAULT.say("a line")
    assert capsys.readouterr() == ("", "")


def test_in_a_notebook_library_functions_show_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    shown: list[object] = []
    monkeypatch.setattr("rich.jupyter.display", lambda segments, text: shown.append(text))
    BY_DEFAULT.say("a line")
    assert "a line" in str(shown)
