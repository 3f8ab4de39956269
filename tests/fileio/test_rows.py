from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from d3hr.fileio.atomic import read_tensors, write_tensors
from d3hr.fileio.rows import RowLayout, write_rows

TENSORS = {
    "mean": torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0)),
    "count": torch.tensor([[1, 2], [3, 4], [5, 6]]),
    "half": torch.arange(6.0).view(3, 2).half(),
    "error": torch.tensor([[0.1, 0.2]] * 3, dtype=torch.float64),
    "alone": torch.tensor([1.5, 2.5, 3.5]),
}


def layouts(tensors: dict[str, Tensor]) -> dict[str, RowLayout]:
    return {name: RowLayout(value.dtype, value.shape) for name, value in tensors.items()}


@pytest.mark.parametrize("names", [list(TENSORS), ["mean"], ["half"], ["count", "alone"]])
def test_the_bytes_are_those_of_the_library(names: list[str], tmp_path: Path) -> None:
    """For tensors of every width; rows may come in a wider type."""
    tensors = {name: TENSORS[name] for name in names}
    write_tensors(tmp_path / "at once", tensors)
    rows = [{name: value[row].double() if value.is_floating_point() else value[row] for name, value in tensors.items()} for row in range(3)]
    write_rows(tmp_path / "by rows", layouts(tensors), rows)
    assert (tmp_path / "by rows").read_bytes() == (tmp_path / "at once").read_bytes()
    assert all(torch.equal(value, tensors[name]) for name, value in read_tensors(tmp_path / "by rows").items())


def test_a_row_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Tensor]]:
        yield {"alone": torch.tensor(1.5)}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path / "file", layouts({"alone": TENSORS["alone"]}), rows())
    assert not list(tmp_path.iterdir())
