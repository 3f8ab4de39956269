"""Folders of images alone are listed quickly, by several processes where they hold many; what is found is the same."""

import os
from pathlib import Path

import pytest

from d3hr.data import plain_folders
from d3hr.data.folders import ClassFolders
from d3hr.data.listed_files import Names
from d3hr.data.listing import folders_below
from d3hr.data.plain_folders import plain_folders as listed


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve classes of files that have not changed for long; some hold more than images, one has a name that is no UTF-8 in it."""
    monkeypatch.setattr("d3hr.data.stamps.RACE_NS", -1)
    monkeypatch.setattr("d3hr.data.plain_folders.processors", lambda: 3)
    for label in range(12):
        folder = tmp_path / f"c{label:02d}"
        folder.mkdir()
        for index in range(label % 4 + 1):
            (folder / f"{index} ä.JPG").write_bytes(bytes(index + 1))
    (tmp_path / "c03" / "notes.txt").write_text("no image")
    (tmp_path / "c05" / "deeper").mkdir()
    (tmp_path / "c05" / "deeper" / "x.png").write_bytes(b"x")
    (tmp_path / "c07" / ".DS_Store").write_bytes(b"")
    (tmp_path / "c09" / "gone.png").symlink_to(tmp_path / "nowhere")
    Path(os.fsdecode(os.fsencode(tmp_path / "c10") + b"/\xff.png")).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("many", [-1, 5, 10**6])
def test_what_is_listed_does_not_depend_on_who_lists(folders: Path, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_folders, "MANY", many)
    found = ClassFolders(folders)
    expected = Names()
    for folder in sorted(folders.iterdir()):
        for below in folders_below(folder, stamped=True):
            chosen = [index for index, image in enumerate(below.images()) if image]
            names = [below.names[index] for index in chosen]
            expected.extend(f"{below.folder.relative_to(folders)}/", names, [below.stamps[index] for index in chosen])
    assert list(found.files) == list(expected)
    assert len(found.files) == 30 + 3
    assert expected.stamps is not None
    assert found.stamps().tolist() == expected.stamps.tolist()
    assert found.ignored == ("c03/notes.txt", "c07/.DS_Store")


@pytest.mark.parametrize("many", [-1, 10**6])
def test_folders_that_hold_more_than_images_are_not_plain(folders: Path, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_folders, "MANY", many)
    places = [(str(folders / name), b"") for name in ("c00", "c03", "c05", "c07", "c09", "c10", "none", "c01")]
    assert [plain is not None for plain in listed(places)] == [True, False, False, False, False, True, False, True]


def test_without_other_processes_folders_are_listed_here(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ClassFolders(folders)
    monkeypatch.setattr(plain_folders, "MANY", -1)
    for program in ("/no such program", "/bin/false"):
        monkeypatch.setattr("sys.executable", program)
        assert list(ClassFolders(folders).files) == list(expected.files)
