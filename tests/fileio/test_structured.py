from pathlib import Path

import pytest

from d3hr.errors import SettingsError
from d3hr.fileio.structured import MAX_BYTES, MAX_DEPTH, read_mapping

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
"""60 lines that stand for 2^60 values."""


def test_plain_values_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\nb: [x, {c: no}]\n")
    assert read_mapping(tmp_path / "a.yaml", "file", "") == {"a": 1, "b": ["x", {"c": False}]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "an alias, .a0, .* in line 2"),
        ("[" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH} deep"),
        ("[" * 100_000, f"more than {MAX_DEPTH} deep"),
        ("a: 1\n---\nb: 2\n", "second document, in line 2"),
        ("a: b: c", "mapping values are not allowed"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("!!int ''", "string index"),
        ("#" * (MAX_BYTES + 1), "over the limit"),
        ("a: '\x00'", "not allowed"),
    ],
)
def test_what_is_more_than_it_seems_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """In one line, and before anything is built of it."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(SettingsError, match=words) as caught:
        read_mapping(tmp_path / "a.yaml", "file", "")
    assert "is not YAML of plain values" in caught.value.what
    assert "\n" not in caught.value.found
