"""Threads that do ahead what will be needed, such as decoding images, as many as the processors of the machine allow."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

DECODERS = "D3HR_DECODERS"
"""Environment variable: how many threads of a process decode images. Processes that share a machine are given their share."""
MOST_DECODERS = 8
"""Threads of one process that are of use: what surrounds each image is Python, which one thread at a time runs."""
_LEAST = 4
"""Items for which a thread is worth while."""
T = TypeVar("T")


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decoding_threads() -> int:
    """Return how many threads of this process decode images: by :data:`DECODERS`, or one for each processor, at most 8."""
    return int(os.environ.get(DECODERS, "0")) or min(MOST_DECODERS, processors())


def decoders_of_each(processes: int) -> int:
    """Return how many threads decode images in each of so many processes of this machine, so that together they fill it once."""
    return max(1, min(MOST_DECODERS, processors() // processes))


def ahead(calls: Iterable[Callable[[], T]], threads: int = 1) -> Iterator[T]:
    """Yield what each call returns, in their order; so many calls are made ahead, in threads, while a result is used.

    An error of a call is raised in its place. No call is made for results that nobody asks for, but those under way.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque[Future[T]]()
        try:
            for call in calls:
                waiting.append(pool.submit(call))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def in_parts(run: Callable[[slice], object], total: int) -> None:
    """Call ``run`` with slices that together are 0 to ``total``, in as many threads as decode images; few items are one slice.

    The threads are those of earlier calls: starting some for a batch takes as long as decoding a small picture.
    """
    threads = decoding_threads()
    parts = max(1, min(threads, total // _LEAST))
    slices = [slice(total * part // parts, total * (part + 1) // parts) for part in range(parts)]
    if parts == 1:
        run(slices[0])
    else:
        list(_kept_threads(os.getpid(), threads).map(run, slices))


@cache
def _kept_threads(process: int, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
