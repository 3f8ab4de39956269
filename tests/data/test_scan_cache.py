"""What a scan found in files is kept, and used as long as they have not changed."""

import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3hr.data.dataset import ImageData
from d3hr.data.listed_files import ListedFiles
from d3hr.data.opening import load_images
from d3hr.data.scan_cache import CACHE_VARIABLE, FACTS, ScanCache, cache_folder
from d3hr.errors import UnreadableImages
from d3hr.fileio.atomic import read_checkpoint, write_tensors
from d3hr.progress import SILENT
from tests.conftest import MakeFolder

OLD = 1_700_000_000
"""A time long past, in seconds."""


@pytest.fixture
def photos(image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two classes whose files seem to have changed long ago, and a cache of its own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("d3hr.data.stamps.RACE_NS", -1)
    return Path(image_folder({"ant": 3, "bee": 2}))


def kept(photos: Path) -> Path:
    (file,) = cache_files()
    assert ScanCache.of(str(photos), None).folder == file.parent
    return file


def cache_files() -> list[Path]:
    folder = cache_folder()
    assert folder is not None
    return sorted(folder.rglob("*.safetensors"))


def change(photos: Path, make: Callable[[np.ndarray], None]) -> None:
    """Change the kept facts in place, so that it shows when they are used."""
    tensors, metadata = read_checkpoint(kept(photos))
    facts = tensors["facts"].clone()
    make(facts.numpy().view(FACTS).reshape(-1))
    write_tensors(kept(photos), {"facts": facts}, {"made_by": metadata["made_by"]})


def test_the_second_look_gives_what_the_first_gave(photos: Path) -> None:
    first, second = load_images(photos), load_images(photos)
    assert first.fingerprint == second.fingerprint
    assert (first.sizes, first.counts) == (second.sizes, second.counts)
    np.testing.assert_array_equal(first.contents.digests, second.contents.digests)


def test_files_that_have_not_changed_are_not_looked_at(photos: Path) -> None:
    load_images(photos)
    change(photos, lambda facts: facts["width"].fill(77))
    assert {width for width, _ in load_images(photos).sizes} == {77}


def test_a_changed_file_is_seen(photos: Path) -> None:
    """One of the same size, with its old time of change set again, has another time of change of its entry (ctime)."""
    before = load_images(photos)
    file = next((photos / "ant").iterdir())
    status = file.stat()
    content = bytearray(file.read_bytes())
    Image.new("RGB", (8, 8), "red").save(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = load_images(photos)
    assert after.fingerprint != before.fingerprint
    file.write_bytes(content)
    assert load_images(photos).fingerprint == before.fingerprint


def test_a_file_that_is_damaged_later_is_seen(photos: Path) -> None:
    load_images(photos)
    file = next((photos / "bee").iterdir())
    file.write_bytes(file.read_bytes()[:40])
    for _ in range(2):
        with pytest.raises(UnreadableImages, match=file.name):
            load_images(photos)


def test_new_and_removed_files_leave_the_others_known(photos: Path) -> None:
    load_images(photos)
    (photos / "ant" / "0000.png").unlink() if (photos / "ant" / "0000.png").exists() else next((photos / "ant").iterdir()).unlink()
    Image.new("RGB", (9, 9), "blue").save(photos / "ant" / "new.png")
    change(photos, lambda facts: facts["width"].fill(77))
    assert load_images(photos).sizes == {(77, 8): 4, (9, 9): 1}


def test_a_file_that_may_still_change_is_not_kept(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files written a moment ago could change again with the same times."""
    monkeypatch.setattr("d3hr.data.stamps.RACE_NS", 3600 * 10**9)
    load_images(photos)
    assert cache_files() == []


def test_a_damaged_cache_is_made_again(photos: Path) -> None:
    before = load_images(photos)
    file = kept(photos)
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert load_images(photos).fingerprint == before.fingerprint
    assert load_images(photos).sizes == before.sizes


def test_a_cache_of_another_decoder_is_not_used(photos: Path) -> None:
    load_images(photos)
    tensors, _ = read_checkpoint(kept(photos))
    facts = tensors["facts"].clone()
    facts.numpy().view(FACTS).reshape(-1)["width"] = 77
    write_tensors(kept(photos), {"facts": facts}, {"made_by": "d3hr of the future"})
    assert {width for width, _ in load_images(photos).sizes} == {8}


def test_members_of_an_archive_are_known_by_the_archive(photos: Path, tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for image in sorted(photos.rglob("*.png")):
            file.write(image, image.relative_to(photos))
    load_images(archive)
    change(archive, lambda facts: facts["width"].fill(77))
    assert {width for width, _ in load_images(archive).sizes} == {77}


def test_without_a_folder_nothing_is_kept(photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = load_images(photos).fingerprint
    monkeypatch.setenv(CACHE_VARIABLE, "")
    assert load_images(photos).fingerprint == expected
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "a file" / "below"))
    assert load_images(photos).fingerprint == expected
    assert ScanCache.of("digits", None).folder is None


def test_processes_that_look_at_once_find_the_same(photos: Path) -> None:
    found: list[ImageData] = []
    looks = [threading.Thread(target=lambda: found.append(load_images(photos))) for _ in range(4)]
    for look in looks:
        look.start()
    for look in looks:
        look.join()
    assert len({images.fingerprint for images in found}) == 1
    assert len(ScanCache.of(str(photos), None).lookup(np.zeros(1, dtype=np.uint64), SILENT)) == 1


@pytest.fixture
def in_parts(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The photos, which are scanned two at a time."""
    monkeypatch.setattr("d3hr.data.scan.PART", 2)
    return photos


def test_parts_give_what_the_whole_gives(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "bee" / "again.png").write_bytes(next((photos / "bee").iterdir()).read_bytes())
    (photos / "ant" / "also.png").write_bytes(next((photos / "bee").iterdir()).read_bytes())
    whole = load_images(photos)
    monkeypatch.setattr("d3hr.data.scan.PART", 2)
    for _ in range(2):
        again = load_images(photos)
        assert (again.fingerprint, again.sizes, again.notes) == (whole.fingerprint, whole.sizes, whole.notes)
    assert (len(whole.contents.repeats), len(whole.contents.contradictions)) == (1, 1)


def test_a_scan_that_was_stopped_goes_on(in_parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found before is kept: the images of the first parts are not read again."""
    expected = load_images(in_parts).fingerprint
    shutil.rmtree(cache_files()[0].parent)
    read = ListedFiles.read
    seen: list[int] = []

    def stops(self: ListedFiles, indices: Sequence[int]) -> list[bytes]:
        if 4 in indices and not seen:
            raise KeyboardInterrupt
        return read(self, indices)

    def counts(self: ListedFiles, indices: Sequence[int]) -> list[bytes]:
        seen.extend(indices)
        return read(self, indices)

    monkeypatch.setattr(ListedFiles, "read", stops)
    with pytest.raises(KeyboardInterrupt):
        load_images(in_parts)
    monkeypatch.setattr(ListedFiles, "read", counts)
    assert load_images(in_parts).fingerprint == expected
    assert seen == [4]


def test_a_file_that_moves_all_others_to_other_parts_is_the_only_one_read(in_parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_images(in_parts)
    Image.new("RGB", (9, 9), "blue").save(in_parts / "ant" / "!.png")
    read = ListedFiles.read
    seen: list[int] = []

    def counts(self: ListedFiles, indices: Sequence[int]) -> list[bytes]:
        seen.extend(indices)
        return read(self, indices)

    monkeypatch.setattr(ListedFiles, "read", counts)
    first = load_images(in_parts)
    assert seen == [0]
    assert load_images(in_parts).fingerprint == first.fingerprint
    assert seen == [0]
    assert len(cache_files()) == 3  # those of the parts as they were are gone
