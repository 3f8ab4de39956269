"""Where networks go: to the GPU that a process of Ray is given, wherever the work began, and to the device that a person names."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from d3hr import Prior, load_images, on_device
from d3hr.errors import SettingsError
from d3hr.evaluation.images import StudentImages
from d3hr.evaluation.students import new_student
from d3hr.evaluation.tasks import Trainings
from d3hr.evaluation.teachers import Teacher
from d3hr.evaluation.training import seeded_student
from d3hr.execution import ray as execution_ray
from d3hr.execution.worker import pickle_work, unpickle_outcome
from d3hr.prior.networks import default_device, fastest_device
from tests.conftest import untrained_prior

FAKE = FakeTensorMode(allow_non_fake_inputs=True)
"""Tensors that have a device, which need not be there, and no values."""


@dataclass(frozen=True)
class WhereThingsGo:
    """Task: anything; result: the devices of latents, of the network's weights, and of a teacher's features."""

    prior: Prior
    teacher: Teacher

    def open(self) -> Callable[[int], set[str]]:
        return self._run

    @torch.no_grad()
    def _run(self, task: int) -> set[str]:
        with FAKE:
            images = torch.zeros(2, 3, 8, 8)
            clean = self.prior.encode(images)
            features = [self.teacher.network.embed(part) for part in self.teacher._parts(images)]
        return {str(value.device) for value in (clean, self.prior.denoiser.weight, *features)}


@dataclass
class FakeCards:
    """Two CUDA devices that this process can see, and the number of the one in use."""

    current: int = 0

    def set_device(self, number: int) -> None:
        self.current = number


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    untrained_prior(("ant", "bee")).save_pretrained(tmp_path / "prior")
    return tmp_path / "prior"


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> FakeCards:
    cards = FakeCards()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.current_device", lambda: cards.current)
    monkeypatch.setattr("torch.cuda.set_device", cards.set_device)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    return cards


@pytest.fixture
def to_any_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let networks move to a device that is not there: their weights are then without values."""
    move = torch.nn.Module.to

    def to(network: torch.nn.Module, *arguments: Any) -> torch.nn.Module:
        with FAKE:
            return move(network, *arguments)

    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    monkeypatch.setattr(torch.nn.Module, "to", to)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


@pytest.mark.usefixtures("to_any_device")
def test_a_process_that_is_moved_computes_on_its_new_gpu(saved: Path, cards: FakeCards, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work was made where card 0 is in use. Ray gives its tasks card 0, card 1 twice, and card 0 again."""
    monkeypatch.setattr("d3hr.prior.model.fingerprint", lambda networks, settings: "weights without values have none")
    prior = Prior.from_pretrained(saved, device="cpu")
    teacher = Teacher(new_student("convnet1", 2, 8).eval().requires_grad_(False), "convnet1", ("ant", "bee"), 8, {})
    with monkeypatch.context() as on_first:
        for kind in (Prior, Teacher):
            on_first.setattr(kind, "device", torch.device("cuda:0"))
        work = pickle_work(WhereThingsGo(prior, teacher))
    monkeypatch.setattr(execution_ray, "_OPENED", {})
    assigned: list[str] = []
    ray = SimpleNamespace(get=lambda reference: reference, get_gpu_ids=lambda: assigned[-1:])
    monkeypatch.setattr(execution_ray, "_ray", lambda: ray)
    found = []
    for card in ("0", "1", "1", "0"):
        assigned.append(card)
        found.append(unpickle_outcome(execution_ray._run_task("key", [work], pickle.dumps(0), torch.get_num_threads())))
    assert found == [{"cuda:0"}, {"cuda:1"}, {"cuda:1"}, {"cuda:0"}]


@pytest.mark.usefixtures("to_any_device")
def test_what_is_loaded_or_made_goes_to_the_device_that_is_named(saved: Path, cards: FakeCards, tmp_path: Path) -> None:
    """The second card, where the first one is in use; and outside of the context to neither, where there is no fast device."""
    Teacher(new_student("convnet1", 2, 8), "convnet1", ("ant", "bee"), 8, {}).save(tmp_path)

    def places() -> set[str]:
        prior, student = Prior.from_pretrained(saved), seeded_student("convnet1", 2, 8, seed=0)
        parts = prior.denoiser.weight, next(prior.vae.parameters()), next(student.parameters())
        return {str(part.device) for part in (*parts, Teacher.load(tmp_path))}

    assert cards.current == 0
    with on_device("cuda:1"):
        assert places() == {"cuda:1"}
        assert Trainings(StudentImages(load_images("digits"))).device == "cuda:1"
        with on_device(None):
            assert str(default_device()) == "cuda:1"
    assert places() == {str(fastest_device())} == {"cpu"}
    with pytest.raises(SettingsError, match="no device cuda:2 here"), on_device("cuda:2"):
        pass
