"""Real and distilled images as points of a plane.

The plane is that of the first two principal components of the real images. It is linear and the same on every machine, and distances in it
mean something, which t-SNE's do not; classes overlap in it more than in t-SNE's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from d3hr.diagnostics.sampling import ClassSample, pooled

A_CLASS, IN_ALL = 50, 1000
"""Points of a class and of all classes at most, of each kind."""


def embedding(samples: Sequence[ClassSample], starts: Mapping[str, int]) -> dict[str, Any]:
    """Return ``method`` and ``points``: x, y, class, kind (real or distilled), and index within the class.

    Args:
        samples: every class.
        starts: the position of the first real image of each class.
    """
    from sklearn.decomposition import PCA

    most = max(1, min(A_CLASS, IN_ALL // len(samples)))
    real = pooled([sample.real[:most] for sample in samples]).astype(np.float64)
    pca = PCA(n_components=min(2, *real.shape), svd_solver="full").fit(real)
    points = []
    for sample in samples:
        real_indices = (sample.positions[:most] - starts[sample.name]).tolist()
        for kind, features, indices in (
            ("real", sample.real[:most], real_indices),
            ("distilled", sample.distilled[:most], range(len(sample.distilled[:most]))),
        ):
            for index, place in zip(indices, pca.transform(features.astype(np.float64)), strict=True):
                x, y = [*place.tolist(), 0.0][:2]
                points.append({"x": x, "y": y, "class": sample.name, "kind": kind, "index": int(index)})
    return {"method": f"first two principal components of {len(real)} real images", "points": points}
