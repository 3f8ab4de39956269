"""What became of a piece of work in another process, as bytes that always arrive."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from typing import Any


class Traceback(Exception):
    """The traceback that an error had in the process it comes from."""

    def __str__(self) -> str:
        return "in another process:\n" + "".join(self.args)


def outcome_of(piece: Callable[[], Any]) -> bytes:
    """Do a piece and return its result, or its error with the traceback, for :func:`result_of` elsewhere.

    Plain pickle carries the values themselves: what is sent must not die with the process that sent it, as tensors in shared memory do.
    """
    try:
        return pickle.dumps((piece(), None, ""), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        text = traceback.format_exc()
        try:
            blob = pickle.dumps((None, error, text), pickle.HIGHEST_PROTOCOL)
            pickle.loads(blob)
        except Exception:  # not every exception of other libraries can be pickled, or comes out again
            blob = pickle.dumps((None, RuntimeError(f"{type(error).__qualname__}: {error}"), text), pickle.HIGHEST_PROTOCOL)
        return blob


def result_of(outcome: bytes) -> Any:
    """Return the result of a piece, or raise its error here, as it is, caused by the traceback that it had."""
    result, error, text = pickle.loads(outcome)
    if error is not None:
        raise error from Traceback(text)
    return result
