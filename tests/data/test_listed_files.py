"""Names of a million files in one buffer."""

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3hr.data.listed_files import ListedFiles, Names
from d3hr.data.listing import files_below, folders_below, holds_images, is_image_in
from d3hr.data.stamps import stamps_at


@given(st.lists(st.binary(min_size=1, max_size=9).map(lambda name: name.decode(errors="surrogateescape"))))
def test_names_are_kept_as_they_are(names: list[str]) -> None:
    """Those that are no UTF-8 too, as the file system gives them."""
    kept = Names(names)
    assert list(kept) == names
    assert [kept[-place] for place in range(1, len(names) + 1)] == names[::-1]


def test_files_are_read_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ä b").write_bytes(b"picture")
    files = ListedFiles(tmp_path, Names(["a/ä b", "gone"]))
    assert files.read([1, 0]) == [b"", b"picture"]
    assert files.name(0) == "a/ä b"


def test_runs_of_names_are_chosen(tmp_path: Path) -> None:
    names = Names()
    names.extend("a/", ["x", "ä"], [1, 2])
    names.extend("b/", ["y", "z", "zz"], [3, 4, 5])
    chosen = names.only([(3, 5), (1, 2)])
    assert list(chosen) == ["b/z", "b/zz", "a/ä"]
    assert chosen.stamps is not None
    assert chosen.stamps.tolist() == [4, 5, 2]
    names.extend("", ["without a stamp"])
    assert names.stamps is None


def test_a_folder_is_listed_in_order_and_once(tmp_path: Path) -> None:
    """Files of a folder come before the folders in it; a link back to a folder that is being listed leads nowhere new."""
    for file in ("b.jpg", "a.jpg", "z/2.jpg", "z/1.txt", "c d/x.jpg", ".hidden/y.jpg", "z/Thumbs.db"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"GIF89a" if file == "z/1.txt" else b"")
    (tmp_path / "z" / "back").symlink_to(tmp_path)
    (tmp_path / "a link").symlink_to(tmp_path / "z" / "2.jpg")
    litter: list[Path] = []
    found = [str(file.relative_to(tmp_path)) for file in files_below(tmp_path, litter)]
    assert found == ["a link", "a.jpg", "b.jpg", "c d/x.jpg", "z/1.txt", "z/2.jpg"]
    assert [str(file.relative_to(tmp_path)) for file in litter] == [".hidden", "z/Thumbs.db", "z/back/.hidden"]
    assert [is_image_in(tmp_path / "z", name) for name in ("1.txt", "2.jpg", "Thumbs.db")] == [True, True, False]
    assert holds_images(tmp_path / "z")


def test_a_listed_file_has_the_stamp_that_it_has_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "ä b.png"):
        (tmp_path / name).write_bytes(name.encode())
        os.utime(tmp_path / name, (1_700_000_000, 1_700_000_000))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr("d3hr.data.stamps.RACE_NS", -1)
    (listed,) = folders_below(tmp_path, stamped=True)
    stamps = stamps_at((f"{tmp_path}/{name}" for name in listed.names), 3)
    assert listed.names == ["a.jpg", "gone.png", "ä b.png"]
    assert listed.stamps == stamps.tolist()
    assert (listed.stamps[1], 0 in listed.stamps[::2]) == (0, False)


def test_names_travel_in_little_memory() -> None:
    """What a worker is sent of a file is its name and less than twenty bytes more."""
    names = Names()
    for label in range(20):
        names.extend(f"n{label:08d}/", [f"n{label:08d}_{index}.JPEG" for index in range(100)], range(100))
    sent = pickle.dumps(ListedFiles(Path("images"), names), pickle.HIGHEST_PROTOCOL)
    assert len(sent) < sum(map(len, names)) + 20 * len(names)
    assert list(pickle.loads(sent).files) == list(names)
