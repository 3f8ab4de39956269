"""The search for groups, one pool for all classes, against a plain search that holds its candidates, class by class.

At D = 4096, 10 images per class, 100 classes of random mean and spread. Prints

- candidates scored per second, for each class, by the plain search and by ours for all classes: their ratio (goal: at least 100). The plain
  search holds [M, K, D] around mu and sigma of one class and gives it to ``group_score``; it is measured on a few classes and taken as it
  is for 100, once whole and once in parts of 100 candidates, which spare it the time to get its memory;
- Kolmogorov-Smirnov's p-value of the best scores of 50 searches with seeds of their own, plain against ours, with M = 500;
- peak memory of a search at 50 images per class, for two numbers of candidates (goal: equal, under 1 GiB);
- ``exact`` against ``search`` by number of candidates: score, seconds per class, memory.

Both searches have the threads of OMP_NUM_THREADS, and seconds are those of the processor, so that other work on the machine counts little.
Memory is the most that a process of its own held in the search, less what it held before. Linux only.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from scipy.stats import ks_2samp
from torch import Tensor

from benchmarks.harness import argument_parser, in_fresh_process, peak_mib, record, resident_mib
from d3hr import ClassGaussian, group_score
from d3hr.distillation.grouping import draw_group, search_candidates
from d3hr.distillation.settings import GroupSettings

D, IPC, CLASSES, M = 4096, 10, 100, 2000
PART = 100
PLAIN_CLASSES, TIMED = 3, 5
REPEATS, REPEATED_M = 50, 2_000
MEMORY_IPC, MEMORY_M = 50, (1_000, 20_000)
TABLE: dict[str, dict[str, Any]] = {
    "exact": {"strategy": "exact"},
    **{f"search, M = {m:,}": {"num_candidates": m} for m in (1, 100, 10_000)},
}


def gaussians(classes: int = CLASSES) -> dict[str, ClassGaussian]:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(classes, D, generator=generator, dtype=torch.float64) * 0.5
    std = torch.rand(classes, D, generator=generator, dtype=torch.float64) * 0.8 + 0.4
    return {f"class {index}": ClassGaussian(mean[index], std[index], 1000) for index in range(classes)}


def plain_search(gaussian: ClassGaussian, candidates: int, seed: int, at_once: int) -> float:
    """Return the score of the best of some groups around mu and sigma, ``at_once`` of them in memory."""
    mean, std = gaussian.mean.float(), gaussian.std.float()
    generator, scores = torch.Generator().manual_seed(seed), []
    for _ in range(0, candidates, at_once):
        groups = mean + std * torch.randn(at_once, IPC, D, generator=generator)
        best = groups[int(group_score(groups, mean, std).argmin())]
        scores.append(score(best.double(), gaussian))
    return min(scores)


def score(group: Tensor, gaussian: ClassGaussian, weights: tuple[float, float, float] = (1.0, 1.0, 0.5)) -> float:
    return float(group_score(group[None], gaussian.mean, gaussian.std, weights=weights))


def seconds_of(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def rates() -> dict[str, float]:
    classes = gaussians()

    def ours(seed: int) -> float:
        return seconds_of(lambda: search_candidates(classes, GroupSettings(ipc=IPC, num_candidates=M, seed=seed)))

    def plain(at_once: int) -> float:
        some = list(classes.values())[:PLAIN_CLASSES]
        return M / statistics.median(seconds_of(lambda: plain_search(gaussian, M, 0, at_once)) for gaussian in some)  # noqa: B023

    rate = M * CLASSES / statistics.median(ours(seed) for seed in range(TIMED))
    whole, parts = plain(M), plain(PART)
    return {"ours": rate, "plain": whole, "plain_in_parts": parts, "ratio": rate / whole, "ratio_to_parts": rate / parts}


def same_distribution() -> dict[str, Any]:
    """Compare best scores of one class; ours are those of a search for all classes, of the group as it would be used."""
    classes = gaussians()
    name, gaussian = next(iter(classes.items()))
    plain, ours = [], []
    for seed in range(REPEATS):
        settings = GroupSettings(ipc=IPC, num_candidates=REPEATED_M, seed=seed)
        ours.append(score(draw_group(name, gaussian, settings, search_candidates(classes, settings)[name]), gaussian))
        plain.append(plain_search(gaussian, REPEATED_M, 1_000_000 + seed, PART))
    test = ks_2samp(plain, ours)
    return {
        "repeats": REPEATS,
        "candidates": REPEATED_M,
        "statistic": float(test.statistic),
        "p_value": float(test.pvalue),
        "plain_mean": statistics.mean(plain),
        "ours_mean": statistics.mean(ours),
        "plain_deviation": statistics.stdev(plain),
        "ours_deviation": statistics.stdev(ours),
    }


def choose(changes: dict[str, Any]) -> dict[str, float]:
    """Choose a group for every class in this process, and return what it took; a group is dropped once its scores are known."""
    settings, classes = GroupSettings(**{"ipc": IPC, **changes}), gaussians()
    before = resident_mib()
    start = time.process_time()
    candidates = search_candidates(classes, settings)
    seconds = time.process_time() - start
    after = peak_mib()
    terms: list[list[float]] = []
    for name, gaussian in classes.items():
        start = time.process_time()
        group = draw_group(name, gaussian, settings, candidates.get(name))
        seconds += time.process_time() - start
        terms.append([score(group, gaussian, weights) for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1))])
    mean, std, skewness = (statistics.mean(term) for term in zip(*terms, strict=True))
    return {
        "score": mean + std + 0.5 * skewness,
        "mean_term": mean,
        "std_term": std,
        "skewness_term": skewness,
        "largest_mean_and_std_term": max(term[0] + term[1] for term in terms),
        "seconds_a_class": seconds / len(classes),
        "search_mib": after - before,
        "process_mib": after,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    argument_parser(__doc__).parse_args(arguments)
    threads = torch.get_num_threads()
    print(f"D = {D}, {IPC} images per class, {CLASSES} classes, M = {M:,}, {threads} thread(s)")
    rate = rates()
    print(f"candidates/s for each class: ours {rate['ours']:,.0f}, plain {rate['plain']:,.0f}, in parts {rate['plain_in_parts']:,.0f}")
    print(f"ratio {rate['ratio']:.0f} (goal: at least 100); to plain in parts {rate['ratio_to_parts']:.0f}", flush=True)

    memory = {m: in_fresh_process(choose, {"ipc": MEMORY_IPC, "num_candidates": m}) for m in MEMORY_M}
    for m, used in memory.items():
        print(f"{MEMORY_IPC} images per class, M = {m:>6,}: search {used['search_mib']:.0f} MiB, process {used['process_mib']:.0f} MiB")
    print(f"ratio {memory[MEMORY_M[1]]['search_mib'] / memory[MEMORY_M[0]]['search_mib']:.3f} (goal: 1, under 1,024 MiB)", flush=True)

    table = {title: in_fresh_process(choose, changes) for title, changes in TABLE.items()}
    print(f"{'':20s} {'score':>8s} {'mean':>9s} {'std':>9s} {'skewness':>9s} {'ms/class':>11s} {'MiB':>6s}")
    for title, row in table.items():
        numbers = " ".join(f"{row[term]:9.3g}" for term in ("mean_term", "std_term", "skewness_term"))
        print(f"{title:20s} {row['score']:8.3f} {numbers} {1000 * row['seconds_a_class']:11.3f} {row['search_mib']:6.0f}")
    million = table["search, M = 10,000"]["seconds_a_class"] * 100
    print(f"search, M = 1,000,000, extrapolated in proportion: {million:.2f} s per class")
    print(f"exact: largest mean + std term {table['exact']['largest_mean_and_std_term']:.1e} (goal: under 1e-4)", flush=True)

    same = same_distribution()
    print(
        f"best score of {REPEATS} searches, M = {REPEATED_M}: plain {same['plain_mean']:.3f} +- {same['plain_deviation']:.3f}, "
        f"ours {same['ours_mean']:.3f} +- {same['ours_deviation']:.3f}; Kolmogorov-Smirnov p = {same['p_value']:.2f}"
    )
    figures: dict[str, Any] = {
        "candidates_a_second_and_class": rate,
        "memory": {str(m): row for m, row in memory.items()},
        "exact_against_search": table,
        "seconds_a_class_of_a_million_extrapolated": million,
        "same_distribution": same,
    }
    record("group_search", {"dimensions": D, "ipc": IPC, "classes": CLASSES, "candidates": M, "threads": threads}, figures)


if __name__ == "__main__":
    main()
