import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import pytest
import torch

from d3hr import Prior
from d3hr.distillation.batching import BatchChoice, choose_batch_size, find_batch_size
from d3hr.distillation.presets import distill_settings
from d3hr.errors import SettingsError
from d3hr.execution.memory import HeldMemory
from tests.conftest import untrained_prior


class Machine:
    """A run of n images takes ``fixed`` + ``each`` * n seconds and holds ``bytes_each`` * n bytes; beyond ``memory`` there are none."""

    def __init__(self, fixed: float, each: float, bytes_each: int = 0, memory: int | None = None, first: float = 0.0) -> None:
        self.fixed, self.each, self.bytes_each, self.memory, self.first = fixed, each, bytes_each, memory, first
        self.now = 0.0
        self.ran: list[int] = []

    def run(self, n: int) -> None:
        if self.memory is not None and self.bytes_each * n > self.memory:
            raise torch.OutOfMemoryError
        self.now += self.fixed + self.each * n + (self.first if n not in self.ran else 0)
        self.ran.append(n)

    def clock(self) -> float:
        return self.now

    def held(self, work: Callable[[], object]) -> int:
        work()
        return self.bytes_each * self.ran[-1]


def found(machine: Machine, **changes: Any) -> BatchChoice:
    return find_batch_size(machine.run, held=machine.held, clock=machine.clock, **changes)


@pytest.mark.parametrize(
    ("fixed", "gain", "expected"),
    [(1.0, 0.05, 1024), (0.1, 0.05, 128), (0.1, 0.5, 8), (0.0, 0.05, 1)],
)
def test_doubling_ends_where_it_no_longer_pays(fixed: float, gain: float, expected: int) -> None:
    """With a + b N seconds a run, b = 0.01, doubling pays up to N* = (1 - g) a / (2 g b), and the choice is twice the largest power of two
    up to N*: a = 1, g = 0.05 gives N* = 950, so 1024; a = 0.1 gives 95, so 128; with g = 0.5, N* = 5, so 8; without a fixed part 1."""
    assert found(Machine(fixed, 0.01), least_gain=gain, largest=4096).batch_size == expected


def test_the_choice_comes_with_its_evidence() -> None:
    """a = 0.1, b = 0.01, g = 0.5: 8 images make 8/0.18 = 44.4 a second; 16 make 61.5, not half as many again, nor do 32 make 2.25 times
    as many, 76.2."""
    choice, sizes = found(Machine(0.1, 0.01, bytes_each=3), least_gain=0.5), [1, 2, 4, 8, 16, 32]
    assert [row.batch_size for row in choice.evidence] == sizes
    assert [row.held_bytes for row in choice.evidence] == [3 * n for n in sizes]
    assert [row.images_per_second for row in choice.evidence] == pytest.approx([n / (0.1 + 0.01 * n) for n in sizes])
    kept = json.loads(json.dumps(asdict(choice)))
    assert (kept["batch_size"], kept["evidence"][3]["held_bytes"]) == (8, 24)
    assert "batch size 8 chosen" in choice.as_text()


@pytest.mark.parametrize(("budget", "expected"), [(1000, 64), (640, 64), (639, 32), (5, 1)])
def test_no_run_holds_more_than_the_budget(budget: int, expected: int) -> None:
    """At 10 bytes an image, 64 images are the largest power of two within 1000 bytes; one image is run in any case."""
    machine = Machine(1.0, 0.01, bytes_each=10)
    choice = found(machine, memory_budget=budget)
    assert choice.batch_size == expected == max(machine.ran)
    assert "may need more" in choice.reason


def test_a_device_that_runs_out_of_memory_ends_the_search() -> None:
    choice = found(Machine(1.0, 0.01, bytes_each=10, memory=1000))
    assert choice.batch_size == 64
    assert "128 images at once do not fit" in choice.reason
    with pytest.raises(SettingsError, match="too little memory"):
        found(Machine(1.0, 0.01, bytes_each=10, memory=5))


@pytest.mark.parametrize(
    ("message", "handled"),
    [
        ("MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 2.1 MB, max allowed: 9.07 GB).", True),
        ("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.", True),
        ("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("XPU out of memory. Tried to allocate 2.00 GiB.", True),
        ("[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.", True),
        ("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)", False),
    ],
)
def test_other_devices_run_out_of_memory_with_a_message(message: str, handled: bool) -> None:
    """PyTorch has a class of error for CUDA alone; what is no lack of memory stays an error."""
    machine = Machine(1.0, 0.01)

    def run(n: int) -> None:
        if n > 64:
            raise RuntimeError(message)
        machine.run(n)

    if handled:
        assert find_batch_size(run, held=machine.held, clock=machine.clock).batch_size == 64
    else:
        with pytest.raises(RuntimeError, match="mat1"):
            find_batch_size(run, held=machine.held, clock=machine.clock)


def test_no_size_beyond_the_largest() -> None:
    machine = Machine(1.0, 0.01)
    assert found(machine, largest=100).batch_size == 64 == max(machine.ran)
    assert found(Machine(1.0, 0.01), largest=1).batch_size == 1


def test_setting_up_does_not_count() -> None:
    """A first run of each size that takes a second longer changes nothing: the fastest of three counts. Slow runs are made once: from 8
    images on, the first alone takes more than five seconds."""
    assert found(Machine(0.1, 0.01, first=1.0), largest=4096).batch_size == 128
    slow = Machine(0.0, 0.8)
    find_batch_size(slow.run, held=slow.held, clock=slow.clock, least_gain=-1.0, largest=8)
    assert [slow.ran.count(n) for n in (1, 2, 4, 8)] == [3, 3, 2, 1]


def test_one_disturbed_size_does_not_end_the_search() -> None:
    """Runs of 4 images are held up by a second; the choice is that of a quiet machine, 128."""
    machine = Machine(0.1, 0.01)

    def run(n: int) -> None:
        machine.run(n)
        machine.now += 1.0 if n == 4 else 0.0

    assert find_batch_size(run, held=machine.held, clock=machine.clock).batch_size == 128


def test_held_memory_sees_what_was_held_meanwhile() -> None:
    """64 MiB of ones, squared fifty times and freed before the work ends."""
    held = HeldMemory(torch.device("cpu"))

    def work() -> None:
        ones = torch.ones(2**24)
        for _ in range(50):
            ones.square_()

    assert held(work) == pytest.approx(2**26, rel=0.1)


def test_python_runs_out_of_memory_too() -> None:
    machine = Machine(1.0, 0.01)

    def run(n: int) -> None:
        if n > 64:
            raise MemoryError
        machine.run(n)

    assert find_batch_size(run, held=machine.held, clock=machine.clock).batch_size == 64


def test_what_counts_is_what_a_run_says() -> None:
    """Runs take ever longer, but say that 0.1 + 0.01 N seconds count: the choice is that of such a machine, 128."""
    machine = Machine(0.0, 0.001)

    def run(n: int) -> float:
        machine.run(n)
        return 0.1 + 0.01 * n

    assert find_batch_size(run, held=machine.held, clock=machine.clock, largest=4096).batch_size == 128


class TimedPrior:
    """A prior that takes a stated time for each call, and counts its calls."""

    def __init__(self, clock: list[float], encode: float, slope: float) -> None:
        prior = untrained_prior(("ant", "bee"))
        self.device, self.image_size, self.schedule, self.denoiser = prior.device, prior.image_size, prior.schedule, prior.denoiser
        self._clock, self._encode, self._slope = clock, encode, slope
        self.decoded = list[int]()

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self._clock[0] += self._encode * len(images)
        return torch.zeros(len(images), 4, 4, 4)

    def slope(self, latents: torch.Tensor, *rest: object) -> torch.Tensor:
        self._clock[0] += self._slope
        return latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self._clock[0] += 100.0
        self.decoded.append(len(latents))
        return latents


def test_each_call_counts_as_often_as_it_occurs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for encoding each image, one for a prediction of any batch, of which there are 31: N images take N + 31 seconds, so that
    doubling pays up to N* = 0.95 * 31 / 0.1 = 295, and the choice is 512. Weighed alike it would be N* = 9.5, and 16. At most ipc images
    are decoded at once, and their time does not count."""
    now = [0.0]
    monkeypatch.setattr("d3hr.distillation.batching.time.perf_counter", lambda: now[0])
    prior = TimedPrior(now, 1.0, 1.0)
    choice = choose_batch_size(cast(Prior, prior), distill_settings("paper", ipc=5))
    assert [row.seconds for row in choice.evidence] == [row.batch_size + 31 for row in choice.evidence]
    assert choice.batch_size == 512
    assert max(prior.decoded) == 5


@pytest.mark.slow
def test_a_batch_size_for_a_prior() -> None:
    """Sizes are powers of two within the limit, and the choice is one of the last three that were tried."""
    choice = choose_batch_size(untrained_prior(("ant", "bee")), distill_settings("paper"), largest=16)
    tried = [row.batch_size for row in choice.evidence]
    assert tried == [1, 2, 4, 8, 16][: len(tried)]
    assert choice.batch_size in tried[-3:]
