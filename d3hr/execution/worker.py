"""One worker process: how it starts, what it is told, how it ends."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from d3hr.errors import SettingsError


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


_CONTEXT = multiprocessing.get_context("spawn")
_READY = b""
_WORK, _PIECE = b"w", b"p"
"""How a message begins that tells of the work, and one that gives a piece of it."""
_STOPS = {signal.SIGINT, signal.SIGTERM}


class Worker:
    """A process that opens a work once and then does one piece of it at a time, until it is told of another.

    Each worker has a pipe of its own, so that one which dies half-way through a message holds up no other.

    Args:
        number: its number among the workers.
        threads: threads that it computes with.
        device: the only entry of CUDA_VISIBLE_DEVICES that it sees, or None to leave them as they are.

    Attributes:
        ready: whether it has started.
        piece: index of the piece that it has been given.
    """

    def __init__(self, number: int, *, threads: int, device: str | None) -> None:
        self.number, self.ready = number, False
        self.piece: int | None = None
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, threads), name=f"d3hr worker {number}")
        environment = thread_environment(threads) | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        try:
            with _started_with(environment):
                self.process.start()
        finally:
            theirs.close()

    @property
    def idle(self) -> bool:
        """Whether it waits for a piece."""
        return self.ready and self.piece is None

    def open(self, work: bytes) -> None:
        """Tell it of the work that its next pieces are of."""
        self._tell(_WORK + work)

    def give(self, piece: int, task: bytes) -> None:
        """Give it a piece; a worker that has just died says so at the next :meth:`hear`."""
        self.piece = piece
        self._tell(_PIECE + task)

    def hear(self, work: bytes) -> tuple[int, bytes] | None:
        """Return the piece that it has done and its outcome, or None when it has started, whereupon it is told of the work.

        Raises:
            EOFError: it died.
        """
        try:
            if not self.connection.poll():
                raise EOFError
            outcome = self.connection.recv_bytes()
        except OSError as error:
            raise EOFError from error
        if self.piece is None:
            self.ready = True
            self.open(work)
            return None
        piece, self.piece = self.piece, None
        return piece, outcome

    def ended_by(self) -> str:
        """Say how a worker that died came to its end."""
        self.process.join()
        code = self.process.exitcode or 0
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def end(self, patience: float) -> None:
        """End it: by itself within so many seconds, else by force. It may be dead already."""
        self.connection.close()
        self.process.join(patience)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.process.close()

    def _tell(self, message: bytes) -> None:
        with suppress(OSError):
            self.connection.send_bytes(message)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until a process that is being started is on the books; it hears of them when it is ready to."""
    resource_tracker.ensure_running()  # multiprocessing lets interrupts through again when it starts this helper of its own
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _started_with(environment: Mapping[str, str]) -> Iterator[None]:
    """Let processes started inside find an environment from their first moment: libraries read it when they are imported."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(connection: Connection[Any, Any], threads: int) -> None:
    """Live as a worker: hear of the work, then do pieces until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the whole group; who began the work decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_threads(threads)
    work, do = b"", None

    def piece(task: bytes) -> Any:
        nonlocal do
        do = do or pickle.loads(work).open()
        return do(pickle.loads(task))

    with suppress(EOFError, OSError):
        connection.send_bytes(_READY)
        while True:
            message = connection.recv_bytes()
            if message.startswith(_WORK):
                work, do = message[1:], None
            else:
                connection.send_bytes(outcome_of(partial(piece, message[1:])))


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


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
        raise SettingsError(f"{flag} must be at least 1.", found=str(value), hint="give 1 or more.")
