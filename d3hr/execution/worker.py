"""What every process that runs tasks for another needs: its threads and devices, and a way to return a result or an error."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from d3hr.data.ahead import DECODERS
from d3hr.errors import ExecutionError, SettingsError

if TYPE_CHECKING:
    import torch

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def thread_environment(threads: int, decoders: int) -> dict[str, str]:
    """Return environment variables that limit numerical libraries to ``threads`` threads, which they read when they are imported, and the
    decoding of images to ``decoders`` threads.
    """
    return dict.fromkeys(_THREAD_VARIABLES, str(threads)) | {DECODERS: str(decoders)}


def set_threads(threads: int) -> None:
    """Set the number of threads that torch uses in this process, whatever the environment was when it was imported."""
    import torch

    torch.set_num_threads(threads)


def cuda_devices() -> list[str]:
    """Return the entries of CUDA_VISIBLE_DEVICES, one for each device that this process may use, without initialising any."""
    import torch

    count, visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible is not None else [str(index) for index in range(count)]
    return [name.strip() for name in names[:count]]


def name_elsewhere(device: torch.device) -> str:
    """Return the name of a device for other processes: a GPU has a number only if it is not the one that this process uses anyway.

    Each worker has a GPU of its own, which ``cuda`` means there.
    """
    import torch

    return str(device) if device.type == "cuda" and device.index not in (None, torch.cuda.current_device()) else device.type


def device_here(name: str) -> torch.device:
    """Return the device that a name of :func:`name_elsewhere` means in this process now; ``cuda`` is the one in use, with its number.

    Raises:
        SettingsError: there is no device of that name, or no GPU of that number.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError("Unknown device.", found=repr(name), hint="use cpu, cuda, cuda:1, ... or mps.") from None
    if device.type != "cuda":
        return device
    if (device.index or 0) >= (count := torch.cuda.device_count()):
        raise SettingsError(
            f"There is no device {name} here.",
            found=f"{count} CUDA device{'' if count == 1 else 's'} in this process",
            hint="leave --device out where workers share the work: each has a device of its own, and CUDA_VISIBLE_DEVICES chooses them.",
        )
    return torch.device("cuda", torch.cuda.current_device()) if device.index is None else device


class RemoteTraceback(Exception):
    """The traceback that an error had in the process where it was raised."""

    def __str__(self) -> str:
        return "in another process:\n" + "".join(self.args)


def pickle_work(work: object) -> bytes:
    """Return work as bytes for another process.

    Raises:
        ExecutionError: it cannot be pickled, as a function that is defined inside another, or by ``lambda``, cannot.
    """
    try:
        return pickle.dumps(work, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # of whatever is pickled
        raise ExecutionError(
            "The work cannot be sent to other processes.",
            found=f"{type(error).__name__}: {error}",
            hint="define the functions of your data set at the top of a module, without lambda; or work in this process alone.",
        ) from error


def pickle_outcome(run: Callable[[], Any]) -> bytes:
    """Call ``run`` and return its result, or its error with the traceback, for :func:`unpickle_outcome` in another process.

    Plain pickle copies values; the picklers of torch and multiprocessing would share memory that is lost if this process dies.
    """
    try:
        return pickle.dumps((run(), None, ""), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        text = traceback.format_exc()
        try:
            outcome = pickle.dumps((None, error, text), pickle.HIGHEST_PROTOCOL)
            pickle.loads(outcome)
        except Exception:  # some exceptions of other libraries cannot be pickled or unpickled
            outcome = pickle.dumps((None, RuntimeError(f"{type(error).__qualname__}: {error}"), text), pickle.HIGHEST_PROTOCOL)
        return outcome


def unpickle_outcome(outcome: bytes) -> Any:
    """Return the result in ``outcome``, or raise the error in it, with its original traceback as the cause."""
    result, error, text = pickle.loads(outcome)
    if error is not None:
        raise error from RemoteTraceback(text)
    return result
