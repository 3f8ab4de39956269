"""The Hugging Face Hub: whether it can be reached, and its client without the warnings of each of its retries."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_TIMEOUT = 10
"""Seconds that the Hub has to answer the first request."""


def unreachable(name: str) -> str:
    """Return why the Hub does not answer a request for a data set, which is not repeated; nothing where it answers, whatever it says."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().dataset_info(name, timeout=_TIMEOUT)
    except (HfHubHTTPError, HFValidationError):
        return ""
    except Exception as error:  # the clients raise from several unrelated trees
        return f"{type(error).__name__}: {error}"
    return ""


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
