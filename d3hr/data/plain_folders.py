"""Lists many folders of image files, by several processes where they hold very many: Python lists them in one thread at a time."""

import marshal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import cast

from d3hr.data import plain_folder, stamps
from d3hr.data.ahead import processors
from d3hr.data.formats import IMAGE_SUFFIXES
from d3hr.data.plain_folder import Plain, list_plain

MANY = 50_000
"""Files that are listed before other processes are started."""
_Folder = tuple[str, bytes]


def plain_folders(folders: Sequence[_Folder]) -> Iterator[Plain | None]:
    """Yield what :func:`~d3hr.data.plain_folder.list_plain` returns for each folder, and what is to come before the names in it."""
    seen = 0
    for place, (folder, prefix) in enumerate(folders):
        if seen > MANY and len(folders) - place > processors() > 1:
            yield from _by_processes(folders[place:])
            return
        found = list_plain(folder, prefix, IMAGE_SUFFIXES, stamps.RACE_NS)
        seen += len(found[2]) // 8 if found else 0
        yield found


def _by_processes(folders: Sequence[_Folder]) -> Iterator[Plain | None]:
    """Deal folders out to as many processes as there are processors; where one fails, folders are not plain."""
    count = processors()
    with ExitStack() as stack:
        processes = [_started(folders[first::count], stack) for first in range(count)]
        for place in range(len(folders)):
            yield _next(processes[place % count])


def _started(folders: Sequence[_Folder], stack: ExitStack) -> subprocess.Popen[bytes] | None:
    try:
        command = [sys.executable, "-I", "-S", plain_folder.__file__]
        process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    except OSError:
        return None
    stack.callback(process.kill)  # one that is still at work is no longer wanted
    assert process.stdin is not None
    try:
        process.stdin.write(marshal.dumps((list(folders), IMAGE_SUFFIXES, stamps.RACE_NS)))
        process.stdin.close()
    except OSError:
        return None
    return process


def _next(process: subprocess.Popen[bytes] | None) -> Plain | None:
    if process is None or process.stdout is None:
        return None
    try:
        return cast(Plain | None, marshal.load(process.stdout))
    except (EOFError, ValueError, TypeError):
        return None
