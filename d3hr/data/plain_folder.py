"""Lists a folder that holds image files and nothing else, quickly; a process that runs this file lists many, and imports nothing more.

Legend: N files.
"""

import hashlib
import marshal
import os
import sys
import time
from array import array
from collections.abc import Container
from operator import attrgetter
from typing import Any

Plain = tuple[bytes, bytes, bytes]
"""Names of N files, sorted, one after the other; the length of each in bytes, uint32 [N]; the stamp of each, uint64 [N]."""


def stamp_of(path: str, status: Any, latest: int) -> int:
    """Return a number that changes when a file does; 0 where it cannot be told whether it changes.

    Args:
        path: where it is.
        status: its ``os.stat_result``.
        latest: a time in nanoseconds; a file that changed after it may change again without another time of change.
    """
    changed, entry_changed = status.st_mtime_ns, status.st_ctime_ns
    if changed > latest or entry_changed > latest:
        return 0
    text = f"{path}\0{status.st_size}\0{changed}\0{entry_changed}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def list_plain(folder: str, prefix: bytes, suffixes: Container[str], race: int) -> Plain | None:
    """Return the files of a folder; None where anything else is in it, or it cannot be read.

    Args:
        folder: the folder.
        prefix: what comes before each name.
        suffixes: endings of the names of images, in lower case.
        race: nanoseconds; a file that changed so shortly before now has no stamp.
    """
    files, stamps, latest = list[os.DirEntry[str]](), array("Q"), time.time_ns() - race
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == "." or name[name.rfind(".") :].lower() not in suffixes or entry.is_dir():
                    return None
                files.append(entry)
        files.sort(key=attrgetter("name"))
        for file in files:
            stamps.append(stamp_of(f"{folder}/{file.name}", file.stat(), latest))
    except OSError:
        return None
    names = [prefix + file.name.encode(errors="surrogateescape") for file in files]
    return b"".join(names), array("I", map(len, names)).tobytes(), stamps.tobytes()


def main() -> None:
    """Read the arguments of :func:`list_plain`, for many folders, and write what it returns for each."""
    folders, suffixes, race = marshal.load(sys.stdin.buffer)
    for folder, prefix in folders:
        marshal.dump(list_plain(folder, prefix, suffixes, race), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
