import os
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch

from d3hr.errors import DamagedFile, NumericalError
from d3hr.fileio.atomic import read_checkpoint, write_tensors
from d3hr.prior.fit_context import FitContext
from d3hr.prior.presets import TrainingSettings
from d3hr.prior.trainer import Trainer, decay, endless_batches, even_batches, reproducible, warm_up
from d3hr.progress import SILENT
from tests.conftest import ONE_PROCESS


def line(folder: Path, steps: int, *, until: int | None = None, poison: bool = False) -> torch.nn.Linear:
    """Fit y = 3x - 1 with noisy inputs; ``until`` stops the run as Ctrl-C would, keeping the last checkpoint."""
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    batches = endless_batches(64, 16, seed=1)
    x = torch.linspace(-1, 1, 64)[:, None]

    def load(step: int) -> torch.Tensor:
        if step == until:
            raise KeyboardInterrupt
        return x[batches(step)]

    def loss(network: torch.nn.Module, batch: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
        noisy = batch + 0.01 * torch.randn(batch.shape, generator=noise)
        return (network(noisy) - 3 * batch + 1).square().mean() + (torch.nan if poison else 0)

    folder.mkdir(exist_ok=True)
    settings = TrainingSettings(steps=steps, batch_size=16, learning_rate=0.1, warmup_steps=10, ema_decay=0.9)
    FitContext(2, False, ONE_PROCESS, folder, SILENT).train("line", model, load, loss, settings)
    return model


def test_training_finds_the_line(tmp_path: Path) -> None:
    model = line(tmp_path / "run", 300)
    assert [model.weight.item(), model.bias.item()] == pytest.approx([3, -1], abs=0.05)


def test_a_run_continued_from_a_checkpoint_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at step 41 and 83 of 120, with a checkpoint after every step: bit for bit what one session gives."""
    whole = line(tmp_path / "whole", 120)
    monkeypatch.setattr("d3hr.prior.trainer.CHECKPOINT_SECONDS", -1.0)
    for until in (41, 83):
        with pytest.raises(KeyboardInterrupt):
            line(tmp_path / "parts", 120, until=until)
    parts = line(tmp_path / "parts", 120)
    assert torch.equal(whole.weight, parts.weight)
    assert torch.equal(whole.bias, parts.bias)


@pytest.mark.parametrize(("spoiled", "words"), [("metadata", "curve"), ("tensors", "average"), ("shapes", "shape")])
def test_a_checkpoint_of_another_form_is_refused(tmp_path: Path, spoiled: str, words: str) -> None:
    """One that lacks its curve, as earlier versions wrote it, a tensor, or has tensors of another network: the message says what to do."""
    line(tmp_path, 5)
    (file,) = tmp_path.glob("*.safetensors")
    tensors, metadata = read_checkpoint(file)
    if spoiled == "tensors":
        tensors = {name: value for name, value in tensors.items() if not name.startswith("average.")}
    elif spoiled == "shapes":
        tensors = {name: value.new_zeros(3, 7) for name, value in tensors.items()}
    write_tensors(file, {name: value.clone() for name, value in tensors.items()}, {} if spoiled == "metadata" else metadata)
    with pytest.raises(DamagedFile, match=rf"(?s)is no checkpoint of this training.*{words}.*delete it"):
        line(tmp_path, 9)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(NumericalError, match=r"(?s)line: the loss is not finite.*nan at step 0"):
        line(tmp_path / "run", 10, poison=True)
    assert not list((tmp_path / "run").iterdir())


def climb(steps: int, ema_decay: float | None, loss: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.sum) -> float:
    """Train the weight 0 by plain gradient descent at rate 1 and return it; a loss equal to the weight lowers it by 1 in each step."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0)
    Trainer(
        "weight", network, optimiser, steps, lambda step: step, lambda *_: loss(network.weight), lambda *_: 1.0, ema_decay=ema_decay
    ).run()
    return network.weight.item()


def test_averaged_weights_by_hand() -> None:
    """Weights -1, -2, -3 after three steps. The average starts as the first; its decay is min(0.9, (1 + n) / (10 + n)) for n = 1, 2.

    2/11 of -1 and 9/11 of -2 are -20/11; 3/12 of that and 9/12 of -3 are -5/11 - 9/4. With a decay of at most 0.1: -1.9, then -2.89.
    Without an average the last weight stays.
    """
    assert climb(3, None) == -3
    assert climb(3, 0.9) == pytest.approx(-5 / 11 - 9 / 4)
    assert climb(3, 0.1) == pytest.approx(-2.89)


def test_a_late_loss_that_is_not_finite_is_named_by_its_step() -> None:
    """The loss is the weight w = -n after n steps, and its square root plus 3.5 cannot be taken from n = 4 on: the fifth loss, step 4."""
    with pytest.raises(NumericalError, match="nan at step 4"):
        climb(2000, None, lambda weight: weight.sum() + 0 * (weight.detach() + 3.5).sqrt().sum())


def test_warm_up_rises_linearly() -> None:
    """Half of the rate at the middle of ten steps, all of it at the tenth and later; no rise without steps."""
    assert [warm_up(step, 10) for step in (4, 9, 500)] == pytest.approx([0.5, 1, 1])
    assert warm_up(0, 0) == 1


def test_schedules_by_hand() -> None:
    """At half of the time cosine has 0.5 and half-cosine 0.5 (1 + cos(pi/4)) = 0.853553; at the end 0 and 0.5 (1 + cos(pi/2)) = 0.5."""
    assert decay("cosine", 0, 8) == decay("half_cosine", 0, 8) == 1
    assert decay("cosine", 4, 8) == decay("cosine", 0.5, 1) == pytest.approx(0.5)
    assert decay("half_cosine", 4, 8) == pytest.approx(0.853553, abs=1e-6)
    assert [decay("step", done, 5) for done in range(5)] == [1, 1, 1, 0.1, 0.1]
    assert decay("cosine", 8, 8) == pytest.approx(0)
    assert decay("half_cosine", 8, 8) == pytest.approx(0.5)


def test_every_epoch_visits_each_image_once_in_a_new_order() -> None:
    """Ten images in an endless stream of batches of 4: the first five batches are two epochs, the third spans both."""
    batches = endless_batches(10, 4, seed=0)
    stream = torch.cat([batches(step) for step in range(5)]).tolist()
    assert sorted(stream[:10]) == sorted(stream[10:]) == list(range(10))
    assert stream[:10] != stream[10:]
    assert batches(2).tolist() == endless_batches(10, 4, seed=0)(2).tolist() == stream[8:12]


def test_even_batches_share_out_a_pass() -> None:
    """21 images in batches of at most 20 are 11 and 10, never one alone; another pass has another order."""
    batches = even_batches(21, 20, seed=0)
    passes = [[batches(step) for step in (2 * epoch, 2 * epoch + 1)] for epoch in range(2)]
    assert [[len(batch) for batch in batches] for batches in passes] == [[11, 10], [11, 10]]
    first, second = (torch.cat(batches).tolist() for batches in passes)
    assert sorted(first) == sorted(second) == list(range(21))
    assert first != second


def test_even_batches_of_packed_images_are_as_many_and_as_large() -> None:
    """Five stored images of four pictures in batches of at most 3: two steps of 3 and 2 an epoch, and each of 20 pictures once in four."""
    batches = even_batches(5, 3, seed=0, of_each=4)
    steps = [batches(step).tolist() for step in range(16)]
    assert sorted(len(step) for step in steps[:8]) == [2] * 4 + [3] * 4
    first, second = (list(chain(*steps[start : start + 8])) for start in (0, 8))
    assert sorted(first) == sorted(second) == list(range(20)) and first != second


def determinism() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.benchmark,
        cudnn.deterministic,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("module", "own"), [("d3hr.prior.model", None), ("d3hr.evaluation.teachers", ":16:8")])
def test_cublas_has_a_fixed_workspace_before_its_first_product(module: str, own: str | None) -> None:
    """PyTorch asks for it once in a process, so it is there as soon as networks can be; the user's own is kept."""
    inherited = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    code = f"import os, {module}; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    given = {"CUBLAS_WORKSPACE_CONFIG": own} if own else {}
    done = subprocess.run([sys.executable, "-c", code], env={**inherited, **given}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (own or ":4096:8")


def test_cuda_is_deterministic_inside_the_context_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards all is as before, also after an error. The CPU needs nothing."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = determinism()
    assert before == (False, False, True, False)
    with pytest.raises(KeyboardInterrupt), reproducible(torch.device("cuda:1")):
        assert determinism() == (True, True, False, True)
        raise KeyboardInterrupt
    assert determinism() == before
    with reproducible(torch.device("cpu")):
        assert determinism() == before


class OnCuda(torch.Tensor):
    """A tensor that says it is on a GPU."""

    device = torch.device("cuda:0")


def test_training_on_cuda_is_deterministic() -> None:
    """A network whose weights say that they are on a GPU sees deterministic algorithms in its loss; one on the CPU does not."""

    def seen(weight: torch.Tensor) -> list[bool]:
        network = torch.nn.Module()
        network.weight = torch.nn.Parameter(weight)
        found = list[bool]()

        def loss(batch: torch.Tensor, step: int) -> torch.Tensor:
            found.append(torch.are_deterministic_algorithms_enabled())
            return (batch * next(network.parameters())).sum().as_subclass(torch.Tensor)

        optimiser = torch.optim.SGD(network.parameters(), lr=0.1, foreach=False)
        Trainer("line", network, optimiser, 2, lambda step: torch.ones(1), loss, lambda step, fraction: 0.1).run()
        return found

    assert seen(torch.ones(1)) == [False, False]
    assert seen(torch.ones(1).as_subclass(OnCuda)) == [True, True]
