"""The one place that runs a command, prints what it gives, saves its settings next to its result, and turns errors into exit codes."""

import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from typing import Any

from jsonargparse import Namespace

from d3hr.cli.parser import build_parser, command_function, flag_groups
from d3hr.errors import D3hrError, OutputError, SettingsError, flag, in_command, printable

BAD_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for anything the user can put right, 130 after Ctrl-C, 143 after SIGTERM."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser, parsers = build_parser([argument for argument in given if not argument.startswith("-")][:1])
    try:
        parsed = parser.parse_args(given)
    except UnicodeDecodeError as error:  # of a --config file
        parser.error(f"--config: no UTF-8 text: {error.reason} at byte {error.start}")
    name = parsed["command"]
    from d3hr.fileio.atomic import write_bytes  # only now: these take a second, which --help has no use for
    from d3hr.progress import is_first_process

    settings, function = parsed[name], command_function(name)
    options = settings.clone()
    _, as_json, debug = (options.pop(flag) for flag in ("config", "json", "debug"))
    for group, kind in flag_groups(function).items():
        options[group] = kind(**{flag: options.pop(flag) for flag in signature(kind).parameters})
    with in_command(), _stopped_by_signals() as received:
        try:
            _require_no_nul(settings)
            with _on_device(settings.get("device")):
                result = function(**options.as_dict())
            if not is_first_process():
                return 0
            if result.folder is not None and result.folder.is_dir():
                saved = settings.clone()
                saved.pop("config")
                write_bytes(result.folder / "settings.yaml", parsers[name].dump(saved).encode())
        except (D3hrError, OSError, MemoryError, RuntimeError, KeyboardInterrupt) as error:
            if received or isinstance(error, KeyboardInterrupt):  # a library may take the interrupt for an error of its own
                print("\nStopped. What is finished is kept; the same command goes on from there.", file=sys.stderr)
                return 128 + received[0] if received else INTERRUPTED
            if debug:
                raise
            print("error:", printable(str(_explained(error)), keep="\n"), file=sys.stderr)
            return BAD_INPUT
    print(json.dumps(result.values, indent=2, ensure_ascii=False) if as_json else printable(result.text, keep="\n"))
    return 0


def _on_device(name: str | None) -> AbstractContextManager[None]:
    """Return a context in which all of a command computes on its --device: its priors, students and teachers, and what it measures."""
    if name is None:
        return nullcontext()
    from d3hr.prior.networks import on_device

    return on_device(name)


@contextmanager
def _stopped_by_signals() -> Iterator[list[int]]:
    """Let SIGTERM stop the work as Ctrl-C does: what is under way is left undone, what holds a folder lets it go; yield what has come."""
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _require_no_nul(values: Namespace) -> None:
    """Refuse a NUL character, which no path can have and the operating system takes for the end of one."""
    for setting, value in vars(values).items():
        if any("\0" in text for text in _texts(value)):
            raise SettingsError(f"{flag(setting)} holds a NUL character.", found=repr(value), hint="take it out.")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in [*value, *(value.values() if isinstance(value, dict) else ())]:
            yield from _texts(part)


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out, or would for a tensor that is larger than any memory."""
    from d3hr.execution.memory import is_out_of_memory

    return is_out_of_memory(error) or "Storage size calculation overflowed" in str(error)


def _too_large(error: Exception) -> D3hrError:
    return SettingsError(
        "There is not enough memory for this.",
        found=str(error).splitlines()[0] if str(error) else "no memory left",
        hint="ask for fewer or smaller images, or give a smaller --batch-size; what is finished is kept.",
    )


def _explained(error: Exception) -> D3hrError:
    """Return what a person reads of an error, which is raised again where it is a fault of ours."""
    if isinstance(error, D3hrError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return _refused(error)
    if not _is_out_of_memory(error):
        raise error
    return _too_large(error)


def _refused(error: OSError) -> D3hrError:
    """Turn the operating system's refusal into a message with a next step."""
    advice = {
        errno.ENOSPC: "free some space; the same command then goes on where it stopped.",
        errno.EDQUOT: "free some space; the same command then goes on where it stopped.",
        errno.EACCES: "choose an --out you may write to.",
        errno.EROFS: "choose an --out you may write to.",
        errno.ENAMETOOLONG: "use a shorter path.",
    }
    where = os.fspath(error.filename) if error.filename is not None else "a file"
    return OutputError(
        f"{where!s} cannot be read or written.",
        found=error.strerror or str(error),
        hint=advice.get(error.errno or 0, "check the path and repeat the command."),
    )


if __name__ == "__main__":
    sys.exit(main())
