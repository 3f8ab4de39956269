"""Smaller features in which the images of a class are compared: principal components, and pixels of a small side.

Legend: N images, F features, P components.
"""

import torch
from torch import Tensor

from d3hr.data.codec import resized


def principal_components(features: Tensor, count: int) -> Tensor:
    """Return the coordinates of rows in the directions in which they vary most: float64 [N, P], of mean zero, P = min(count, N, F).

    Columns are uncorrelated, in descending order of variance, and zero beyond the rank of the rows. The sign of each is such that its entry
    of largest magnitude, of equal ones the first, is positive. Exact, from the Gram matrix of the rows or of the columns, whichever is
    smaller (the method of snapshots; Sirovich 1987); its rounding, relative to the largest standard deviation, is 1e-8.

    Args:
        features: rows [N, F].
        count: largest number of components, at least 1.
    """
    from scipy.linalg import eigh

    rows = features.cpu().double()
    rows = rows - rows.mean(dim=0)
    by_columns = rows.shape[1] <= len(rows)
    gram = rows.T @ rows if by_columns else rows @ rows.T
    size = len(gram)
    variances, vectors = eigh(gram.numpy(), subset_by_index=[max(0, size - count), size - 1])
    directions = torch.from_numpy(vectors.copy()).flip(1)
    scores = rows @ directions if by_columns else directions * torch.from_numpy(variances.copy()).flip(0).clamp(min=0).sqrt()
    largest = scores.gather(0, scores.abs().argmax(dim=0, keepdim=True))
    return torch.where(largest < 0, -scores, scores)


def small_pixels(images: Tensor, side: int) -> Tensor:
    """Return the pixels of float images [N, 3, H, W], H = W, at a side of so many pixels (antialiased): [N, 3 * side^2]."""
    return resized(images, side).flatten(1)
