"""How long does it take to augment and mix the batch of a training step, next to kornia, which draws the random numbers?

Each step is applied by kornia's own module and by d3hr, to the same pictures from the same seeds, and takes turns with the other. Flips and
mixup must give the same pictures; kornia's CutMix cuts a rectangle of its own for each image, d3hr's one for the batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from kornia.augmentation import RandomCutMixV2, RandomHorizontalFlip, RandomMixUpV2
from torch import Tensor

from benchmarks.harness import argument_parser, record
from d3hr.evaluation.augmentation import augmentation, mixing
from d3hr.evaluation.protocols import Protocol

TURNS = 9
Apply = Callable[[Tensor], Tensor]


def steps(side: int, count: int) -> dict[str, tuple[Apply, Apply]]:
    """Return, of each step, how kornia and how d3hr apply it."""
    protocol, positions = Protocol(name="step", steps=1, batch_size=count, learning_rate=0.1), torch.arange(count)
    mixup = RandomMixUpV2(data_keys=["input", "class"])
    cutmix = RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=True)
    ours = {kind: mixing(protocol.model_copy(update={"mix": kind})) for kind in ("mixup", "cutmix")}
    return {
        "flip": (RandomHorizontalFlip(), augmentation(protocol.model_copy(update={"flip": True}), side)),
        "mixup": (lambda images: mixup(images, positions)[0], lambda images: ours["mixup"](images).images),
        "cutmix": (lambda images: cutmix(images, positions)[0], lambda images: ours["cutmix"](images).images),
    }


def timed(apply: Apply, images: Tensor, seed: int) -> tuple[float, Tensor]:
    """Return the seconds of CPU time that a step takes, and its pictures."""
    torch.manual_seed(seed)
    start = time.process_time()
    made = apply(images)
    return time.process_time() - start, made


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--side", type=int, default=224, help="of a picture, in pixels")
    parser.add_argument("--count", type=int, default=50, help="pictures of a batch")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    images = torch.rand(options.count, 3, options.side, options.side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    figures = {}
    for name, (theirs, ours) in steps(options.side, options.count).items():
        before, after = list[float](), list[float]()
        for seed in range(TURNS):
            seconds, expected = timed(theirs, images, seed)
            before.append(seconds)
            seconds, made = timed(ours, images, seed)
            after.append(seconds)
            if name != "cutmix" and not torch.equal(made, expected):
                raise SystemExit(f"{name}: not the pictures of kornia")
        pair = statistics.median(before), statistics.median(after)
        figures[name] = {"kornia_ms": round(1e3 * pair[0], 2), "d3hr_ms": round(1e3 * pair[1], 2), "ratio": round(pair[0] / pair[1], 2)}
        print(f"{name:>7}: kornia {1e3 * pair[0]:7.1f} ms, d3hr {1e3 * pair[1]:6.1f} ms: {pair[0] / pair[1]:.1f} times as fast", flush=True)
    record("augmentation", {"side": options.side, "count": options.count, "turns": TURNS, "threads": 1}, figures)


if __name__ == "__main__":
    main()
