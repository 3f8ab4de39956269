"""Small real parts for the tests: an analytic prior, an untrained prior, and folders of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from d3hr.data.dataset import ImageData
from d3hr.data.opening import load_images
from d3hr.data.scan_cache import CACHE_VARIABLE
from d3hr.errors import in_command
from d3hr.prior.conditions import Condition
from d3hr.prior.families.dit import DiT
from d3hr.prior.model import Prior
from d3hr.prior.networks import SCHEDULER_CONFIG, new_autoencoder, new_transformer
from d3hr.prior.presets import PRESETS
from d3hr.prior.schedules.schedule import Point
from d3hr.prior.schedules.variance_preserving import VariancePreserving
from d3hr.progress import Progress

hypothesis.settings.register_profile("quick", max_examples=10)  # of 100: a tenth of the cases of every test

SMALL = PRESETS["tiny"].model_copy(
    update={"autoencoder_widths": (8, 16), "layers": 2, "heads": 2, "width": 32},
)


@dataclass
class GaussianPrior:
    """The exact prior of data x ~ N(mean, std^2), every dimension apart.

    With z = sqrt(a) x + sqrt(1-a) e, the best prediction of e is sqrt(1-a) (z - sqrt(a) mean) / (a std^2 + 1 - a), and the
    probability flow keeps u = (z - sqrt(a) mean) / sqrt(a std^2 + 1 - a) constant.
    """

    mean: Tensor
    std: Tensor
    schedule: VariancePreserving
    rounding: float = torch.finfo(torch.float64).eps

    def slope(self, latents: Tensor, point: Point, condition: Condition | Tensor, guidance_scale: float = 1.0) -> Tensor:
        return point.sigma * (latents - point.alpha * self.mean) / (point.alpha**2 * self.std**2 + point.sigma**2)

    def predict_noise(self, latents: Tensor, timestep: int, labels: Tensor) -> Tensor:
        return self.slope(latents, self.schedule.at(timestep), labels)

    def transported(self, clean: Tensor, timestep: int) -> Tensor:
        """Return where the exact flow carries latents of timestep 0."""
        a0, a = (float(self.schedule.alphas_cumprod[t]) for t in (0, timestep))
        u = (clean - a0**0.5 * self.mean) / (a0 * self.std**2 + 1 - a0).sqrt()
        return a**0.5 * self.mean + (a * self.std**2 + 1 - a).sqrt() * u


class MetalTensor(torch.Tensor):
    """A tensor as on a Metal device, which has no float64: a cast on the device fails, also one that a move to the CPU asks for."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.double or (func is torch.Tensor.to and torch.float64 in (*args, *(kwargs or {}).values())):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
        result = super().__torch_function__(func, types, args, kwargs or {})
        moved = func is torch.Tensor.cpu or (func is torch.Tensor.to and "cpu" in args)
        return result.as_subclass(torch.Tensor) if moved else result


@pytest.fixture
def gaussian_prior() -> GaussianPrior:
    generator = torch.Generator().manual_seed(3)
    mean = torch.randn(4, 2, 2, generator=generator, dtype=torch.float64)
    std = torch.rand(4, 2, 2, generator=generator, dtype=torch.float64) + 0.3
    return GaussianPrior(mean, std, VariancePreserving.from_config(SCHEDULER_CONFIG))


def untrained_prior(class_names: tuple[str, ...], image_size: int = 8) -> Prior:
    """A small prior with random weights everywhere, so that its predictions depend on everything they should."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = new_autoencoder(SMALL, image_size)
        transformer = new_transformer(SMALL, (4, image_size // 2), len(class_names))
        for parameter in transformer.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    return Prior(DiT(transformer, class_names), vae, SCHEDULER_CONFIG)


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny preset with smaller networks and batches."""
    training = {
        name: getattr(SMALL, name).model_copy(update={"batch_size": 16}) for name in ("autoencoder_training", "transformer_training")
    }
    monkeypatch.setitem(PRESETS, "tiny", SMALL.model_copy(update=training))


@pytest.fixture(autouse=True)
def messages_of_commands() -> Iterator[None]:
    """Messages are compared as a command shows them, with flags; outside of one they name arguments (tests/test_errors.py)."""
    with in_command():
        yield


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests leave nothing in the user's cache, and find nothing there; those of the cache name a folder of their own."""
    monkeypatch.setenv(CACHE_VARIABLE, "")


@pytest.fixture(scope="session")
def digits() -> ImageData:
    return load_images("digits")


@pytest.fixture(scope="session")
def digits_prior(tmp_path_factory: pytest.TempPathFactory, digits: ImageData) -> Prior:
    """An untrained prior of the ten digits, saved and loaded."""
    folder = tmp_path_factory.mktemp("digits-prior") / "prior"
    untrained_prior(digits.class_names).save_pretrained(folder)
    return Prior.from_pretrained(folder)


ONE_PROCESS = SimpleNamespace(
    num_processes=1,
    process_index=0,
    is_main_process=True,
    device=torch.device("cpu"),
    prepare=lambda network: network,
    wait_for_everyone=lambda: None,
)
"""What a fit needs of ``accelerate.Accelerator``, where this process works alone."""

MakeFolder = Callable[..., Path]


@pytest.fixture
def image_folder(tmp_path: Path) -> MakeFolder:
    """Make a folder of class folders of random PNG images."""

    def make(classes: dict[str, int], *, size: int = 8, name: str = "images") -> Path:
        root = tmp_path / name
        rng = np.random.default_rng(0)
        for class_name, count in classes.items():
            folder = root / class_name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        return root

    return make


def hub_cache(folder: Path, cache: Path, name: str) -> None:
    """Lay ``folder`` out as the Hub's cache holds a downloaded repository."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / ("a" * 40))


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache of a machine without network."""
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return cache


def write_parquet(folder: Path, images: list[Path], labels: list[int], names: list[str]) -> Path:
    """Write images with a class label each as a folder of one parquet file, as the Hugging Face Hub keeps them."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [{"bytes": path.read_bytes(), "path": None} for path in images], "label": labels}
    folder.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "train-00000-of-00001.parquet")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below ``folder`` with its contents."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class RecordingProgress(Progress):
    """Keeps the lines that are shown to the user."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)
