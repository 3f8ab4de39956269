"""The Hugging Face Hub: whether it can be reached, and its client without the warnings of each of its retries."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

_TIMEOUT = 10
"""Seconds that the Hub has to answer the first request."""
Answer = TypeVar("Answer")


def unreachable(name: str, *, kind: Literal["dataset", "model"] = "dataset", seconds: float = _TIMEOUT) -> str:
    """Return why the Hub does not answer a request for a repository, which is not repeated; nothing where it answers, whatever it says."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        within(seconds, lambda: HfApi().repo_info(name, repo_type=kind, timeout=seconds))
    except (HfHubHTTPError, HFValidationError):
        return ""
    except Exception as error:  # the clients raise from several unrelated trees
        return f"{type(error).__name__}: {error}"
    return ""


def within(seconds: float, call: Callable[[], Answer]) -> Answer:
    """Return what ``call`` returns, or raise what it raises; a ``TimeoutError`` where it takes longer.

    It then goes on in a thread, as nothing can interrupt it: the lookup of a name has no time limit of its own.
    """
    answers: list[Answer] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(call())
        except Exception as error:  # raised where it was asked for
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer in {seconds:g} seconds")
    return answers[0]


@contextmanager
def quiet_client(offline: bool) -> Iterator[None]:
    """Let the Hub's client say nothing of its retries inside and, where the Hub is out of reach, use what it has kept without asking."""
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.utils import logging as hub_logging

    before = hub_logging.get_verbosity(), constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    hub_logging.set_verbosity(logging.ERROR)
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = offline
    try:
        yield
    finally:
        verbosity, constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
        hub_logging.set_verbosity(verbosity)
