"""Executions by name, flags that contradict them, and the settings that commands take."""

import re
import sys
from typing import Any

import pytest

from d3hr.__main__ import main
from d3hr.cli.options import RUNNING, Running
from d3hr.distillation.presets import DistillOptions, ExpandOptions
from d3hr.distillation.settings import StatisticsSettings
from d3hr.errors import ExecutionError, SettingsError
from d3hr.execution.base import Serial
from d3hr.execution.processes import WorkerProcesses
from d3hr.execution.ray import RayCluster
from tests.execution.works import FloatSums


def test_executions_by_name() -> None:
    assert RUNNING.chosen() == Serial()
    assert Running("processes", workers=3, threads=2).chosen() == WorkerProcesses(3, 2)
    assert Running("processes", workers=1).chosen() == WorkerProcesses(1, 1)
    assert Running("ray").chosen() == RayCluster("auto", None, 1)
    assert Running("ray", workers=8, threads=4, address="head:6379").chosen() == RayCluster("head:6379", 8, 4)


@pytest.mark.parametrize(
    ("name", "flags", "flag"),
    [
        ("here", {"workers": 2}, "--workers"),
        ("here", {"threads": 2}, "--threads"),
        ("here", {"address": "auto"}, "--address"),
        ("processes", {"workers": 2, "address": "auto"}, "--address"),
        ("processes", {}, "--workers"),
        ("processes", {"workers": 0}, "--workers"),
        ("processes", {"workers": 2, "threads": 0}, "--threads"),
        ("ray", {"workers": 0}, "--workers"),
        ("ray", {"threads": -1}, "--threads"),
    ],
)
def test_contradictions_are_refused_by_the_flag(name: Any, flags: dict[str, Any], flag: str) -> None:
    with pytest.raises(SettingsError, match=flag):
        Running(name, **flags).chosen()


def test_a_teacher_is_one_training(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train-teacher", "digits", "--test", "digits", "--out", "nowhere", "--execution", "processes", "--workers", "2"]
    assert main(arguments) == 2
    assert "one training" in (text := capsys.readouterr().err) and "--device" in text


def test_ray_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'd3hr\[ray\]'"):
        next(RayCluster().run(FloatSums(), [1]))


def test_a_cluster_that_is_not_there_is_told_how_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own answer, by which address it was, takes the place of a search: other tests may have clusters up."""
    ray = pytest.importorskip("ray")

    def refuse(address: str, **_: object) -> None:
        raise ConnectionError(f"Could not find any running Ray instance at {address}.")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ExecutionError, match=r"(?s)--address auto.*Could not find any running Ray instance.*ray start --head"):
        next(RayCluster().run(FloatSums(), [1]))


def flags_of(command: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The flags that ``--help`` lists, by the names of the settings."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return {flag.replace("-", "_") for flag in re.findall(r"^  --([\w-]+)", capsys.readouterr().out, flags=re.MULTILINE)}


@pytest.mark.parametrize(("command", "options"), [("distill", DistillOptions), ("plan", DistillOptions), ("expand", ExpandOptions)])
def test_commands_take_every_setting(command: str, options: type[DistillOptions], capsys: pytest.CaptureFixture[str]) -> None:
    """What can be distilled can be planned, and what does not decide the statistics can be changed when a set is expanded."""
    flags = flags_of(command, capsys)
    assert options.__annotations__.keys() <= flags
    assert "ipc" in flags
    if command != "expand":
        assert "preset" in flags


def test_expand_leaves_the_statistics_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert not StatisticsSettings.model_fields.keys() & flags_of("expand", capsys)
