import threading

import pytest

from d3hr.data.hub import within


def test_a_call_has_its_answer_its_error_or_its_time() -> None:
    """One that would wait for ever, as the lookup of a name may, is left behind."""
    assert within(30, lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        within(30, lambda: 1 // 0)
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.05 seconds"):
        within(0.05, never.wait)
    never.set()
