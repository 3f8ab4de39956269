"""The parts of the report whose values have a closed form."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d3hr.data.opening import load_images
from d3hr.diagnostics.sampling import Embedding, Point
from d3hr.evaluation.results import ResultRow
from d3hr.formatting import flat, size_in_words, time_in_words
from d3hr.report.charts import accuracy_chart
from d3hr.report.maps import HEIGHT, MARGIN, MAX_POINTS, MAX_TABLE, WIDTH, confusion_of, drawing_of
from d3hr.report.pictures import nearest_pairs, sheet_of
from d3hr.report.results import difference, group_rows, summary
from tests.conftest import MakeFolder


def row(method: str = "d3hr", mean: float = 0.5, std: float = 0.0, **changes: Any) -> ResultRow:
    usual = {"ipc": 10, "student": "convnet3", "protocol": "quick", "labels": "hard", "seeds": 3}
    return ResultRow(**{**usual, "method": method, "accuracy_mean": mean, "accuracy_std": std, **changes})


def test_a_gap_is_held_against_the_spread_of_both() -> None:
    """Spreads of 3 and 4 points make 5: a gap of 5.1 points is outside, one of 4.9 within, one under 0.05 is none."""
    real = row("random_real", 0.5, 0.03)
    assert difference(row(mean=0.551, std=0.04), real).startswith("5.1 points above random real images")
    assert "outside the spread" in difference(row(mean=0.551, std=0.04), real)
    assert "within the spread" in difference(row(mean=0.451, std=0.04), real)
    assert difference(row(mean=0.5004), real).startswith("Level with")


def test_a_headline_speaks_of_random_real_and_the_best_other_at_the_same_ipc() -> None:
    own = row(mean=0.6)
    others = [row("random_real", 0.7), row("prior_only", 0.5), row("herding", 0.65), row("prior_only", 0.9, ipc=50)]
    said = summary(group_rows([own, *others])[0], own)
    assert [sentence.split(":")[0] for sentence in said] == [
        "10.0 points below random real images",
        "5.0 points below real images by herding",
    ]


def test_a_headline_says_that_random_real_is_missing() -> None:
    own = row(mean=0.6)
    assert "were not measured" in summary(group_rows([own, row("prior_only")])[0], own)[0]


def test_a_row_of_many_classes_has_no_matrix() -> None:
    """More than 100 classes keep no confusion matrix, which is empty then; one of another size is refused."""
    names = [str(label) for label in range(101)]
    assert row(class_names=names, confusion=[]).confusion == ()
    with pytest.raises(ValueError, match="not 101 x 101"):
        row(class_names=names, confusion=[[1]])


def test_rows_part_by_labels_student_side_and_packing() -> None:
    rows = [row(), row(labels="soft"), row(student="resnet18"), row(image_size=32), row("random_real"), row(pack=2)]
    assert [len(group.rows) for group in group_rows(rows)] == [2, 1, 1, 1, 1]
    assert group_rows(rows)[-1].title.endswith("packed 2x2, 4 images per stored image")


def test_a_protocol_may_depend_on_the_ipc_but_not_differ_at_one() -> None:
    """IPC 10 and 50 with their own epochs share a chart; two settings at IPC 10 do not."""
    short, long = {"epochs": 1500}, {"epochs": 2000}
    rows = [row(protocol_settings=long), row(ipc=50, protocol_settings=short)]
    group = group_rows(rows)[0]
    assert len(group_rows(rows)) == 1
    assert group.protocols == [([10], long), ([50], short)]
    parted = group_rows([*rows, row("random_real", protocol_settings=short)])
    assert [[(part.method, part.ipc) for part in group.rows] for group in parted] == [[("d3hr", 10), ("d3hr", 50)], [("random_real", 10)]]
    assert parted[0].title != parted[1].title


def test_confusions_are_shares_of_the_true_class() -> None:
    """Of 4 images of a, 1 is taken for b: 0.25. A class without images has shares of 0."""
    matrix = confusion_of(("a", "b", "c"), [[3, 1, 0], [2, 0, 0], [0, 0, 0]])
    assert matrix.shares == [[0.75, 0.25, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert matrix.common == [("b", "a", 2, 1.0), ("a", "b", 1, 0.25)]
    assert matrix.picture is None


def test_many_classes_become_a_picture() -> None:
    side = MAX_TABLE + 1
    matrix = confusion_of([str(label) for label in range(side)], np.eye(side, dtype=int).tolist())
    assert (matrix.picture or "").startswith("data:image/png;base64,")
    assert matrix.common == []


def points(count: int) -> tuple[Point, ...]:
    return tuple(Point(index, 2 * index, "a", "real", index) for index in range(count))


def test_the_plane_keeps_its_margins_and_points_upwards() -> None:
    """The smallest x and y stand at the lower left margin, the largest at the upper right; a point without a place is left out."""
    nowhere = Point(None, 1.0, "b", "real", 0)
    drawing = drawing_of(Embedding(points=(*points(2), nowhere)), ["a"])
    assert drawing is not None
    assert [(dot.x, dot.y) for dot in drawing.real] == [(MARGIN, HEIGHT - MARGIN), (WIDTH - MARGIN, MARGIN)]
    assert list(drawing.colours) == ["a"]


def test_too_many_points_are_thinned_and_said() -> None:
    count = 2 * MAX_POINTS["real"]
    drawing = drawing_of(Embedding(points=points(count)), ["a"])
    assert drawing is not None
    assert [dot.index for dot in drawing.real[:3]] == [0, 2, 4]
    assert f"{MAX_POINTS['real']:,} of {count:,} real images" in drawing.rule


def test_a_sheet_shows_what_its_budget_takes(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Twelve images a class: ten fit at most; a budget of one image in each of three classes shows one; of half an image, one class."""
    images = load_images(image_folder({"a": 12, "b": 12, "c": 12}, size=16))
    full = sheet_of(images)
    assert [len(pictures) for pictures in full.classes.values()] == [10, 10, 10]
    assert "the first 10 images of each class" in full.rule
    size = max(len(picture.uri) * 3 // 4 for pictures in full.classes.values() for picture in pictures)
    assert [len(pictures) for pictures in sheet_of(images, budget=int(3.5 * size)).classes.values()] == [1, 1, 1]
    least = sheet_of(images, budget=size // 2)
    assert list(least.classes) == ["a"]
    assert "the first 1 of 3 classes" in least.rule


def test_pairs_take_the_first_of_every_class_first(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Two real images are there for a, one for b: with room for two pairs, each class gets one."""
    folder = image_folder({"a": 3, "b": 3}, size=16)
    sheet = sheet_of(load_images(folder))
    nearest = tmp_path / "nearest"
    for name, count in (("a", 2), ("b", 1)):
        (nearest / name).mkdir(parents=True)
        for index in range(count):
            (nearest / name / f"{index:05d}.png").write_bytes((folder / name / f"{index}.png").read_bytes())
    folders = {"a": "a", "b": "b"}
    assert {name: len(pairs) for name, pairs in nearest_pairs(sheet, nearest, folders).items()} == {"a": 2, "b": 1}
    pair_bytes = 2 * max(len(picture.uri) * 3 // 4 for pictures in sheet.classes.values() for picture in pictures)
    assert {name: len(pairs) for name, pairs in nearest_pairs(sheet, nearest, folders, budget=2 * pair_bytes).items()} == {"a": 1, "b": 1}


@pytest.mark.parametrize(("count", "words"), [(999, "999 B"), (1000, "1.0 kB"), (16_900, "16.9 kB"), (2_500_000_000, "2.5 GB")])
def test_sizes_have_decimal_units(count: int, words: str) -> None:
    assert size_in_words(count) == words


@pytest.mark.parametrize(("count", "words"), [(512, "512 B"), (3 * 2**30, "3.0 GiB")])
def test_sizes_of_memory_have_binary_units(count: int, words: str) -> None:
    assert size_in_words(count, binary=True) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.0 s"), (42, "42 s"), (120, "2.0 min"), (3 * 3600, "3.0 h"), (86400 * 1500, "1,500.0 days")]
)
def test_times_have_a_unit_that_suits_them(seconds: float, words: str) -> None:
    assert time_in_words(seconds) == words


def test_settings_are_flat_and_in_words() -> None:
    values = {"a": {"b": True, "c": None}, "d": [1.0, 0.5], "e": {}}
    assert flat(values) == [("a.b", "yes"), ("a.c", "none"), ("d", "1.0, 0.5"), ("e", "none")]


def test_a_chart_of_names_unknown_holds_no_name() -> None:
    """Without names the legend is the page's, so that no name reaches the SVG, where $ and _ would mean something."""
    chart = accuracy_chart([row("_a$b$"), row("<b>", ipc=50)])
    assert "$" not in chart
    assert "&lt;b&gt;" not in chart
