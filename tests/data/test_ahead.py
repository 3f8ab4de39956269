"""Calls made ahead in threads, and how many threads of all processes of a machine decode images."""

import threading
from collections.abc import Callable

import pytest
import torch

from d3hr import load_images
from d3hr.data import ahead as module
from d3hr.data.ahead import DECODERS, ahead, decoders_of_each, decoding_threads
from d3hr.data.loader import Batches
from d3hr.data.transfer import pinned, to_device
from d3hr.execution.worker import thread_environment
from tests.conftest import MakeFolder


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_and_no_more_are_made_than_stated(threads: int) -> None:
    """While result n is used, those up to n + ``threads`` are made, in other threads; later ones wait."""
    started, used = [threading.Event() for _ in range(10)], threading.get_ident()

    def call(index: int) -> Callable[[], int]:
        def run() -> int:
            assert threading.get_ident() != used
            started[index].set()
            return index

        return run

    for index, result in enumerate(ahead((call(index) for index in range(10)), threads)):
        assert result == index
        assert all(event.wait(10) for event in started[: index + threads + 1])
        assert not any(event.is_set() for event in started[index + threads + 1 :])


def test_an_error_comes_in_its_place_and_ends_the_work() -> None:
    made = []

    def call(index: int) -> int:
        if index == 2:
            raise ValueError("third")
        made.append(index)
        return index

    results = ahead(lambda index=index: call(index) for index in range(100))  # type: ignore[misc]
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="third"):
        next(results)
    assert made in ([0, 1], [0, 1, 3])


def test_a_batch_is_decoded_while_the_one_before_is_used(image_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second batch, and no later one, is decoded before it is asked for."""
    images = load_images(image_folder({"ant": 8, "bee": 2}))
    decoded, second = list[int](), threading.Event()
    pixels = type(images).pixels

    def count(self: object, name: str, indices: tuple[int, ...]) -> torch.Tensor:
        result = pixels(images, name, indices)
        decoded.append(indices[0])
        if indices[0] == 2:
            second.set()
        return result

    monkeypatch.setattr(type(images), "pixels", count)
    batches = Batches(images).of("ant", range(8), 2)
    next(batches)
    assert second.wait(10)
    assert decoded == [0, 2]


@pytest.mark.parametrize(("processes", "cores", "each"), [(1, 2, 2), (8, 2, 1), (4, 64, 8), (16, 64, 4), (3, 16, 5)])
def test_decoders_of_all_processes_fill_the_machine_once(processes: int, cores: int, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With eight threads in each of 8 workers, two cores had 64 of them."""
    monkeypatch.setattr(module, "processors", lambda: cores)
    assert decoders_of_each(processes) == each
    assert each == 1 or processes * each <= cores
    monkeypatch.setenv(DECODERS, thread_environment(1, each)[DECODERS])
    assert decoding_threads() == each


def test_batches_are_pinned_for_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[torch.Tensor]()

    def pin(self: torch.Tensor) -> torch.Tensor:
        asked.append(self)
        return self

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    images, labels = torch.zeros(2, 3), torch.zeros(2)
    for kind in ("cpu", "mps"):
        assert pinned((images, labels), torch.device(kind)) == (images, labels)
    assert not asked
    pinned((images, labels), torch.device("cuda"))
    assert [each is there for each, there in zip(asked, (images, labels), strict=True)] == [True, True]
    assert to_device(images, torch.device("cpu")) is images
