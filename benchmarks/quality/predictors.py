"""Which property of a set, known before anything is trained on it, goes with what students learn: rank correlations over finished sets.

Reads the sets and trainings that ``benchmarks.quality.real_choice DATA ...`` left in benchmarks/work/choices; packed sets are left out.
Properties are taken per class, against held-out training images, in the features and by the answers of a teacher, which may have seen
all of these images. Sets of one row are alike, so that intervals come from drawing rows, not sets, anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import RESULTS, WORK, argument_parser, record
from benchmarks.real_data import NAMES, images_of, real_data
from d3hr import DistilledSet, ImageData
from d3hr.data.codec import to_unit_range
from d3hr.diagnostics.distances import Measures
from d3hr.diagnostics.neighbours import diversity, mean_support, support
from d3hr.diagnostics.spaces import Array, feature_space, mean_of_known, scaling
from d3hr.evaluation.teachers import Teacher
from d3hr.fileio.atomic import read_json
from d3hr.progress import OnTerminal

RESAMPLES = 2000
"""Draws of rows that an interval comes from."""
HARD = ("margin", "BPS-like")
"""Rows that look for hard images; correlations are taken without them, too, as they alone could make them."""
LEAST_ROWS = 5
"""Rows of one number of images per class and one kind of labels, below which nothing is correlated."""
PROPERTIES = ("precision", "recall", "density", "coverage", "frechet", "diversity", "separation", "confidence", "entropy")


class RealImages:
    """Held-out images as a teacher sees them: points of each class, in units of their spread."""

    def __init__(self, images: ImageData, teacher: Teacher) -> None:
        self.teacher, self._space = teacher, feature_space(teacher=teacher)
        own = {name: self._space.points(torch.cat(list(images.batches(name, 256)))) for name in images.class_names}
        self._scale = scaling(np.concatenate(list(own.values())))
        self.points = {name: self._scale(points) for name, points in own.items()}
        self._centres = np.stack([points.mean(axis=0) for points in self.points.values()])

    def seen(self, pictures: torch.Tensor) -> Array:
        """Return the points of other images [K, 3, H, W]."""
        return self._scale(self._space.points(pictures))

    def separation(self, points: Array, label: int) -> float:
        """Return how much farther the nearest centre of another class is from points [K, D] than that of their own, in the mean."""
        apart = np.linalg.norm(points[:, None] - self._centres[None], axis=2)
        return float((np.delete(apart, label, axis=1).min(axis=1) - apart[:, label]).mean())


def properties(distilled: DistilledSet, real: RealImages) -> dict[str, float | None]:
    """Return the properties of a set: the mean over classes of each."""
    found: list[dict[str, float | None]] = []
    supports = []
    for label, name in enumerate(distilled.class_names):
        pictures = to_unit_range(distilled.of_class(name))
        points = real.seen(pictures)
        answers = real.teacher.logits(pictures, distilled.class_names).float().log_softmax(dim=1)
        supports.append(support(real.points[name], points))
        found.append(
            {
                "frechet": Measures(real.points[name], 0).of(points)["frechet"],
                "diversity": diversity(points),
                "separation": real.separation(points, label),
                "confidence": float(answers[:, label].exp().mean()),
                "entropy": float(-(answers.exp() * answers).sum(dim=1).mean()),
            }
        )
    overlap = vars(mean_support(supports))
    return {**overlap, **{key: mean_of_known(each[key] for each in found) for key in found[0]}}


def correlations(sets: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return Spearman's rank correlation of each property with accuracy, over sets, with a 95 % interval over rows drawn anew."""
    from scipy.stats import spearmanr

    names = list(dict.fromkeys(each["row"] for each in sets))
    members = [[place for place, each in enumerate(sets) if each["row"] == name] for name in names]
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    accuracies = np.array([each["accuracy"] for each in sets])

    def rank(values: NDArray[np.float64], places: Sequence[int]) -> float:
        chosen = list(places)
        if len(set(values[chosen])) < 2 or len(set(accuracies[chosen])) < 2:
            return 0.0
        return float(spearmanr(values[chosen], accuracies[chosen]).statistic)

    result = {}
    for name in PROPERTIES:
        values = np.array([each["properties"][name] for each in sets], dtype=float)
        if np.isfinite(values).all():
            again = [rank(values, [place for row in rows for place in members[row]]) for rows in drawn]
            low, high = np.quantile(again, [0.025, 0.975])
            result[name] = {"rank_correlation": rank(values, range(len(sets))), "low": float(low), "high": float(high)}
    return result


def sets_of(folder: Path) -> list[dict[str, Any]]:
    """Return the sets of a comparison, with the mean accuracy of the students of each."""
    found = []
    for row in read_json(folder / "results.json"):
        for seed in dict.fromkeys(run[0] for run in row["runs"]) if row["pack"] == 1 else ():
            accuracy = float(np.mean([run[2] for run in row["runs"] if run[0] == seed]))
            place = folder / "sets" / f"{row['name']}-ipc{row['ipc']}-seed{seed}"
            about = {"row": f"{folder.name}: {row['name']}", "ipc": row["ipc"], "labels": row["labels"], "seed": seed}
            found.append({**about, "accuracy": accuracy, "place": place})
    return found


def kept_properties(name: str, teacher: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the properties of sets that an earlier run with the same teacher measured, by row and seed."""
    file = RESULTS / f"{name}.json"
    kept = read_json(file) if file.is_file() else {}
    same = kept.get("settings", {}).get("teacher") == teacher
    return {_key(each): each["properties"] for each in kept["figures"]["sets"]} if same else {}


def _key(each: dict[str, Any]) -> str:
    return f"{each['row']}, {each['ipc']}, {each['labels']}, {each['seed']}"


def measured(sets: Sequence[dict[str, Any]], teacher: Teacher, data: str, kept: dict[str, dict[str, float | None]]) -> None:
    """Give each set its properties, in place of where it is."""
    real: RealImages | None = None
    with OnTerminal().bar("measuring sets", len(sets)) as bar:
        for done, each in enumerate(sets, 1):
            place = each.pop("place")
            if _key(each) not in kept:
                real = real or RealImages(images_of(real_data(data), "validation")[0], teacher)
                kept[_key(each)] = properties(DistilledSet.load(place), real)
            each["properties"] = kept[_key(each)]
            bar.update(done)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", choices=NAMES)
    parser.add_argument("--teacher", required=True, help="folder of a teacher")
    options = parser.parse_args(arguments)
    teacher = Teacher.load(options.teacher)
    about = {"student": teacher.student, "accuracy": teacher.about.get("accuracy")}
    folders = sorted(file.parent for file in (WORK / "choices").glob(f"{options.data}-*/results.json"))
    sets = [each for folder in folders for each in sets_of(folder)]
    name = f"{options.data}-predictors"
    measured(sets, teacher, options.data, kept_properties(name, about))
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in sets:
        title = f"{each['labels']} labels, IPC {each['ipc']}"
        groups.setdefault(title, []).append(each)
        if not each["row"].endswith(HARD):
            groups.setdefault(f"{title}, without rows that look for hard images", []).append(each)
    figures: dict[str, dict[str, Any]] = {
        title: {"sets": len(same), "rows": len(rows), "correlations": correlations(same)}
        for title, same in groups.items()
        if len(rows := {each["row"] for each in same}) >= LEAST_ROWS
    }
    for title, group in figures.items():
        print(title, f"({group['rows']} rows, {group['sets']} sets)")
        for key, each in group["correlations"].items():
            print(f"  {key:12s} {each['rank_correlation']:+.2f} ({each['low']:+.2f} to {each['high']:+.2f})")
    record(name, {"teacher": about, "resamples": RESAMPLES}, {"groups": figures, "sets": sets})


if __name__ == "__main__":
    main()
