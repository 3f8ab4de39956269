"""Names of a million files in one buffer."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from d3hr.data.listed_files import ListedFiles, Names


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
