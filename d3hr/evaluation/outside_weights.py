"""Weights of residual networks that others trained: read without running what a file says, and put into our networks by their names.

Files of torchvision, of timm and of the common ResNets for CIFAR agree on names: ``conv1``, ``bn1``, ``layer1.0.conv1``,
``layer1.0.bn1``, ``layer2.0.downsample.0`` (or ``shortcut.0``), ``fc`` (or ``linear``). All messages speak of these.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from d3hr.errors import DamagedFile, DataError, listed
from d3hr.fileio.atomic import read_tensors

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Where a checkpoint of a training keeps the weights."""
_COUNTS = "num_batches_tracked"
"""Batches that a batch norm has seen, which nothing here reads; old files lack them."""
_NAMED = 5
"""Most weights of a kind that a message names."""
_CLASSIFIERS = ("fc", "linear", "classifier")
_OURS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"network\.embedder\.embedder\.convolution\."), lambda _: "conv1."),
    (re.compile(r"network\.embedder\.embedder\.normalization\."), lambda _: "bn1."),
    (
        re.compile(r"network\.encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.(convolution|normalization)\."),
        lambda at: f"layer{int(at[1]) + 1}.{at[2]}.{'conv' if at[4] == 'convolution' else 'bn'}{int(at[3]) + 1}.",
    ),
    (
        re.compile(r"network\.encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.(convolution|normalization)\."),
        lambda at: f"layer{int(at[1]) + 1}.{at[2]}.downsample.{int(at[3] == 'normalization')}.",
    ),
    (re.compile(r"classifier\."), lambda _: "fc."),
)
"""Names in our networks and what they are called elsewhere; those of the ResNets for CIFAR are the same but for the classifier."""
_KNOWN: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    **{((blocks,) * 3, False): f"resnet{6 * blocks + 2}" for blocks in (3, 5, 7, 9)},
}
"""Blocks of each stage, and whether they are bottlenecks -> the student."""
IMPORTED = tuple(_KNOWN.values())
"""Students whose weights may come from outside."""


def read_outside_weights(file: Path) -> dict[str, Tensor]:
    """Return name -> tensor of a state dict, its names as in the text above; prefixes that all names share are left out.

    A ``.safetensors`` file is read as such, any other as PyTorch's, by a reader that builds tensors and plain values alone.

    Raises:
        DataError: it cannot be read, holds other objects, or no weights.
    """
    tensors = {name: value for name, value in _unwrapped(_content(file)).items() if _is_plain(value)}
    if not tensors:
        raise DataError(
            f"{file} holds no weights.", found="no tensor in it", hint="save the network's state_dict, as safetensors or by torch.save."
        )
    while len(heads := {name.partition(".")[0] for name in tensors}) == 1 and all("." in name for name in tensors):
        tensors = {name.removeprefix(f"{next(iter(heads))}."): value for name, value in tensors.items()}
    return {_renamed(name): value.detach() for name, value in tensors.items() if not name.endswith(_COUNTS)}


def put_weights(network: nn.Module, student: str, weights: Mapping[str, Tensor], file: Path) -> None:
    """Load weights of :func:`read_outside_weights` into one of the networks of :data:`IMPORTED`, in place.

    Raises:
        DataError: they do not fit; it names those that are missing, left over, or of another shape, and what the file looks like. Or some
            are not finite.
    """
    own = network.state_dict()
    ours = {_published(name): name for name in own if not name.endswith(_COUNTS)}
    wrong = {
        "missing": [name for name in ours if name not in weights],
        "unexpected": [name for name in weights if name not in ours],
        "of another shape": [
            f"{name} ({_shape(weights[name])}, not {_shape(own[key])})"
            for name, key in ours.items()
            if name in weights and weights[name].shape != own[key].shape
        ],
    }
    if any(wrong.values()):
        lines = [f"{what}: {listed(names, limit=_NAMED)}" for what, names in wrong.items() if names]
        raise DataError(
            f"The weights of {file} are not those of {student}.",
            found="\n         ".join([f"the file {looks_like(weights)}", *lines]),
            hint=f"choose --student ({', '.join(IMPORTED)}) and --image-size for it: up to 64 pixels a stem is 3 x 3, above 7 x 7.",
        )
    values = {key: weights[name].to(own[key].dtype) for name, key in ours.items()}
    broken = [name for name, key in ours.items() if not values[key].isfinite().all()]
    if broken:
        raise DataError(
            f"The weights of {file} are not numbers.", found=f"infinite or undefined values in {listed(broken)}", hint="use another file."
        )
    network.load_state_dict(own | values)


def outputs_of(weights: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes that the weights of a classifier tell; None without one."""
    return len(weights["fc.bias"]) if "fc.bias" in weights else None


def looks_like(weights: Mapping[str, Tensor]) -> str:
    """Return what weights by these names are of, in words: ``looks like resnet56: 9 blocks in each of 3 stages, ...``."""
    blocks: dict[int, set[int]] = {}
    for name in weights:
        if at := re.match(r"layer(\d+)\.(\d+)\.", name):
            blocks.setdefault(int(at[1]), set()).add(int(at[2]))
    if not blocks:
        return f"looks like no ResNet: its first names are {listed(list(weights)[:3])}"
    depths = tuple(len(blocks[stage]) for stage in sorted(blocks))
    student = _KNOWN.get((depths, any(".conv3." in name for name in weights)))
    counts = f"{depths[0]} blocks in each of" if len(set(depths)) == 1 else f"{', '.join(map(str, depths))} blocks in"
    details = [f"{counts} {len(depths)} stages"]
    if (stem := weights.get("conv1.weight")) is not None and stem.ndim == 4:
        details.append(f"a stem of {stem.shape[2]} x {stem.shape[3]}")
    if outputs := outputs_of(weights):
        details.append(f"{outputs} outputs")
    return f"{f'looks like {student}' if student else 'is of a network that d3hr does not have'}: {', '.join(details)}"


def _content(file: Path) -> object:
    hint = "download it again, or save the network's state_dict, as safetensors or by torch.save."
    if not file.is_file():
        raise DataError(f"There are no weights at {file}.", found="no such file", hint="give a .safetensors, .pth or .pt file.")
    try:
        if file.suffix == ".safetensors":
            return read_tensors(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except DamagedFile as error:
        raise DataError(f"{file} cannot be read as safetensors.", found=error.found, hint=hint) from error
    except Exception as error:  # PyTorch's reader raises from many unrelated trees
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise DataError(
                f"{file} holds more than weights.",
                found=f"the Python object {code[1]}, which d3hr does not load, since that can run code",
                hint="save the weights alone: torch.save(network.state_dict(), FILE), or as safetensors.",
            ) from error
        raise DataError(f"{file} cannot be read as weights of PyTorch.", found=(str(error).splitlines() or [""])[0], hint=hint) from error


def _is_plain(value: object) -> TypeGuard[Tensor]:
    """Return whether a value is a tensor of numbers in memory, neither sparse nor quantised."""
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized


def _unwrapped(content: object) -> Mapping[str, object]:
    """Return the mapping that has the weights, of what a file holds."""
    if not isinstance(content, Mapping):
        return {}
    inside = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    return {str(name): value for name, value in inside.items()}


def _renamed(name: str) -> str:
    first, dot, rest = name.partition(".")
    return f"fc{dot}{rest}" if first in _CLASSIFIERS else name.replace(".shortcut.", ".downsample.")


def _published(name: str) -> str:
    for ours, theirs in _OURS:
        if at := ours.match(name):
            return theirs(at) + name[at.end() :]
    return name


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
