"""Groups of real images: what the search of random groups and the descent by swaps cost, and how good their groups are.

Features of one class are drawn from five clusters, correlated and skewed. Prints

- seconds, memory and score of the best of 10^5 random groups of 10 of 5,000 images with D = 4096 (goal: within 1 GiB in all);
- seconds and score of each descent, at three sizes of class, feature and group, next to the best of 10^4 random groups;
- on 400 cases of at most 12 images and 5 in a group, how often descents from 1, 4 and 16 starts end in the best of all groups.

Seconds are those of the processor. Memory is the most that a process of its own held, with the features. Linux only.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import TypedDict

import torch
from torch import Tensor

from benchmarks.harness import argument_parser, in_fresh_process, peak_mib, record
from d3hr import group_score
from d3hr.selection.groups import exact_group, search_group

IMAGES, D, IPC, M = 5_000, 4_096, 10, 100_000
SIZES = ((5_000, 64, 10), (5_000, 64, 50), (5_000, D, 10))
STARTS, CASES = (1, 4, 16), 400


class Found(TypedDict):
    """What a choice took, and how good it is."""

    seconds: float
    score: float
    process_mib: float


def class_features(images: int, dimensions: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return features [N, F] of one class with their mean and std."""
    generator = torch.Generator().manual_seed(seed)
    clusters = torch.randint(0, 5, (images,), generator=generator)
    points = torch.randn(images, dimensions, generator=generator) + 1.5 * torch.randn(5, dimensions, generator=generator)[clusters]
    features = points @ torch.randn(dimensions, dimensions, generator=generator).div_(dimensions**0.5)
    features += 0.3 * features.clamp(min=0).square_()
    return features, features.mean(dim=0), features.std(dim=0)


def choose(images: int, dimensions: int, k: int, *, candidates: int = 0, starts: int = 0) -> Found:
    """Choose a group in this process by the search of so many candidates, or else by so many descents."""
    features, mean, std = class_features(images, dimensions)
    start = time.process_time()
    if candidates:
        chosen = search_group(features, k, mean, std, num_candidates=candidates, seed=0)
    else:
        chosen = exact_group(features, k, mean, std, generator=torch.Generator().manual_seed(0), starts=starts)
    return {"seconds": time.process_time() - start, "score": score(features, chosen, mean, std), "process_mib": peak_mib()}


def score(features: Tensor, chosen: list[int], mean: Tensor, std: Tensor) -> float:
    return float(group_score(features[chosen][None].double(), mean, std))


def optima() -> dict[str, float]:
    """Return the share of small cases in which the descents from so many starts end in the best of all groups."""
    found = dict.fromkeys(STARTS, 0)
    for case in range(CASES):
        images, k = 6 + case % 7, 2 + case % 4
        features, mean, std = (values.double() for values in class_features(images, 1 + case % 6, seed=case))

        def descend(starts: int) -> float:
            generator = torch.Generator().manual_seed(case)  # noqa: B023
            chosen = exact_group(features, k, mean, std, generator=generator, starts=starts, max_enumerated=0)  # noqa: B023
            return score(features, chosen, mean, std)  # noqa: B023

        groups = torch.tensor(list(itertools.combinations(range(images), k)))
        lowest = float(group_score(features[groups], mean, std).min())
        for starts in STARTS:
            found[starts] += descend(starts) <= lowest * (1 + 1e-9) + 1e-12
    return {str(starts): count / CASES for starts, count in found.items()}


def shown(title: str, run: Callable[..., Found], *sizes: int, **options: int) -> Found:
    row = in_fresh_process(run, *sizes, **options)
    print(f"{title:50s} {row['seconds']:7.2f} s  score {row['score']:8.3f}  process {row['process_mib']:6,.0f} MiB", flush=True)
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    argument_parser(__doc__).parse_args(arguments)
    search = shown(f"search, M = {M:,}, {IPC} of {IMAGES:,}, D = {D:,}", choose, IMAGES, D, IPC, candidates=M)
    exact = {}
    for images, dimensions, k in SIZES:
        title = f"{k} of {images:,}, D = {dimensions:,}"
        exact[title] = {
            "search": shown(f"search, M = 10,000, {title}", choose, images, dimensions, k, candidates=10_000),
            **{str(n): shown(f"exact, {n} start(s), {title}", choose, images, dimensions, k, starts=n) for n in (1, 4)},
        }
    shares = optima()
    print("best of all groups found: " + ", ".join(f"{100 * share:.0f} % by {starts} start(s)" for starts, share in shares.items()))
    settings = {"images": IMAGES, "dimensions": D, "ipc": IPC, "candidates": M, "cases": CASES, "threads": torch.get_num_threads()}
    record("real_group_search", settings, {"search": search, "exact": exact, "optimum_found_by_starts": shares})


if __name__ == "__main__":
    main()
