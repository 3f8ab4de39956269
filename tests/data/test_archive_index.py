"""The index of an archive against dictionaries and sets, and members in every way of packing."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3hr.data.archive_index import Index
from d3hr.data.members import open_archive

PARTS = st.sampled_from(["a", "b", "a.b", "a0", "ä", "a-", "\udc80"])
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


@given(st.lists(NAMES, max_size=12), st.lists(NAMES, max_size=3))
def test_the_index_finds_what_a_dictionary_finds(names: list[str], folders: list[str]) -> None:
    index = Index(((name, (number, 7)) for number, name in enumerate(names)), folders, 2)
    expected = {name: [number, 7] for number, name in enumerate(names)}
    assert len(index) == len(expected)
    for name in [*names, *sorted(names), *folders, "c", "a/c", ""]:
        assert index.numbers(name) == expected.get(name)
    inside = {"/".join(name.split("/")[:depth]) for name in names for depth in range(len(name.split("/")))}
    inside |= {"/".join(name.split("/")[:depth]) for name in folders for depth in range(len(name.split("/")) + 1)} | {""}
    for name in {*inside, *names, "c", "a"}:
        assert index.is_folder(name) == (name in inside)
    for folder in inside:
        found = list(index.entries(folder))
        start = f"{folder}/" if folder else ""
        files = {name[len(start) :] for name in names if name.startswith(start) and "/" not in name[len(start) :]}
        below = {name[len(start) :] for name in inside if name and name.startswith(start) and "/" not in name[len(start) :]} - {""}
        assert sorted(found) == sorted([(name, False) for name in files] + [(name, True) for name in below])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_of_a_zip_are_read_in_every_packing(method: int, tmp_path: Path) -> None:
    """After something else at the beginning, as in a self-extracting archive, and with an empty file."""
    contents = {f"{number}.bin": np.random.default_rng(number).bytes(50) * number for number in range(4)}
    buffer = io.BytesIO(b"#!/bin/sh\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", method) as archive:
        for name, content in contents.items():
            archive.writestr(f"x/{name}", content)
    (tmp_path / "x.zip").write_bytes(buffer.getvalue())
    inside = open_archive(tmp_path / "x.zip")
    assert {name: (inside / "x" / name).read_bytes() for name in contents} == contents


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_a_zip_is_empty(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("a", bytes(range(256)))
        archive.writestr("b", b"sound")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[60] ^= 1
    (tmp_path / "x.zip").write_bytes(content)
    inside = open_archive(tmp_path / "x.zip")
    assert ((inside / "a").read_bytes(), (inside / "b").read_bytes(), (inside / "c").read_bytes()) == (b"", b"sound", b"")
