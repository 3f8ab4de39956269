"""How many threads a worker computes with."""

from __future__ import annotations

from d3hr.errors import SettingsError

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def thread_environment(threads: int) -> dict[str, str]:
    """Return the environment in which numerical libraries start with that many threads; they read it when they are imported."""
    return dict.fromkeys(_VARIABLES, str(threads))


def set_threads(threads: int) -> None:
    """Let torch compute with that many threads in this process, whatever it was imported with."""
    import torch

    torch.set_num_threads(threads)


def at_least_one(flag: str, value: int) -> None:
    """Refuse a number of workers or threads below one, by the name of its flag."""
    if value < 1:
        raise SettingsError(f"{flag} must be at least 1.", found=str(value), do="give 1 or more.")
