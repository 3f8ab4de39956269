"""Errors travel between processes as they are."""

import pickle
from contextvars import ContextVar

import pytest

from d3hr import errors
from d3hr.errors import ClassMismatch, D3hrError, SettingsError, UnreadableImages, in_command


def kinds(base: type[D3hrError] = D3hrError) -> list[type[D3hrError]]:
    return [base, *(kind for child in base.__subclasses__() if child.__module__ == errors.__name__ for kind in kinds(child))]


def raised(kind: type[D3hrError]) -> D3hrError:
    if issubclass(kind, UnreadableImages):
        return kind("a folder", {"one.png": "no image", "two.png": "cut off"})
    if issubclass(kind, ClassMismatch):
        return kind("a set", ["ant", "bee"], "a teacher", ["bee"], hint="rename it.")
    return kind("It is wrong.", found="this", hint="that.")


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("kind", kinds())
def test_every_error_comes_out_of_a_pickle_as_it_went_in(kind: type[D3hrError], protocol: int) -> None:
    error = raised(kind)
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert copy.args == error.args
    assert vars(copy) == vars(error)


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in kinds())


def test_outside_a_command_a_message_names_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a flag is only part of a whole command, it stays: that is what to type."""
    error = SettingsError("--batch-size must be positive.", found="--batch-size -1", hint="leave --batch-size out: 'd3hr fit A --out B'.")
    monkeypatch.setattr(errors, "_IN_COMMAND", ContextVar("of this test", default=False))
    assert str(error) == "batch_size must be positive.\n  found: batch_size -1\n  do:    leave batch_size out: 'd3hr fit A --out B'."
    with in_command():
        assert "--batch-size must be positive" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_files_that_cannot_be_read_for_the_same_reason_are_one_line() -> None:
    """Twenty cut files and an empty one: two lines, and all names in ``files``."""
    error = UnreadableImages("photos", {**{f"{index}.png": "cut off" for index in range(20)}, "x.png": "empty"})
    assert error.found == "20 images: cut off: 0.png, 1.png, 2.png, and 17 more\n         x.png: empty"
    assert len(error.files) == 21
    assert error.files[20] == "x.png: empty"
