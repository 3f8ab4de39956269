"""The command line: one table of commands, and the one place that prints, saves settings and turns errors into exit codes."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from inspect import signature
from typing import Any

from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader
from yaml import YAMLError

from d3hr.cli.baseline import baseline
from d3hr.cli.compare import compare
from d3hr.cli.demo import demo
from d3hr.cli.diagnose import diagnose
from d3hr.cli.distill import distill
from d3hr.cli.evaluate import evaluate
from d3hr.cli.expand import expand
from d3hr.cli.fit import fit
from d3hr.cli.inspect import inspect
from d3hr.cli.options import Loading, Reading, Running
from d3hr.cli.output import Result
from d3hr.cli.plan import plan
from d3hr.cli.recipe import recipe
from d3hr.cli.report import report
from d3hr.cli.train_teacher import train_teacher
from d3hr.errors import D3hrError, OutputError, SettingsError, printable
from d3hr.fileio.atomic import write_bytes
from d3hr.fileio.structured import require_plain
from d3hr.progress import is_first_process

COMMANDS: dict[str, Callable[..., Result]] = {
    "demo": demo,
    "inspect": inspect,
    "fit": fit,
    "plan": plan,
    "distill": distill,
    "expand": expand,
    "baseline": baseline,
    "train-teacher": train_teacher,
    "evaluate": evaluate,
    "compare": compare,
    "diagnose": diagnose,
    "recipe": recipe,
    "report": report,
}
_REPEATED = {"--evaluation"}
"""Flags that may be given several times; each adds to the list."""
GROUPS: dict[str, type[Any]] = {"loading": Loading, "reading": Reading, "running": Running}
"""Parameters of commands that stand for flags which several commands share; each field is a flag."""
PLAIN = "plain yaml"
"""What jsonargparse calls our reading of YAML."""
BAD_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for anything the user can put right, 130 after Ctrl-C, 143 after SIGTERM."""
    parser, parsers = build_parser()
    try:
        settings = parser.parse_args(arguments)
    except UnicodeDecodeError as error:  # of a --config file
        parser.error(f"--config: no UTF-8 text: {error.reason} at byte {error.start}")
    name = settings["command"]
    given = settings[name]
    options = given.clone()
    edge = {flag: options.pop(flag) for flag in ("config", "json", "debug")}
    for group, kind in _groups(COMMANDS[name]).items():
        options[group] = kind(**{each.name: options.pop(each.name) for each in fields(kind)})
    with _stopped_by_signals() as received:
        try:
            _require_no_nul(given.as_flat())
            result = COMMANDS[name](**options.as_dict())
            if not is_first_process():
                return 0
            if result.folder is not None and result.folder.is_dir():
                write_bytes(result.folder / "settings.yaml", parsers[name].dump(_without_config(given)).encode())
        except (D3hrError, OSError, MemoryError, RuntimeError, KeyboardInterrupt) as error:
            if received or isinstance(error, KeyboardInterrupt):  # a library may take the interrupt for an error of its own
                print("\nStopped. What is finished is kept; the same command goes on from there.", file=sys.stderr)
                return 128 + received[0] if received else INTERRUPTED
            return _complain(_explained(error), edge["debug"])
    print(json.dumps(result.values, indent=2, ensure_ascii=False) if edge["json"] else printable(result.text, keep="\n"))
    return 0


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


def _plain_values(text: str) -> Any:
    """Read the YAML of a --config file, or of a value on the command line, as values alone.

    jsonargparse would import whatever a ``class_path`` in it names; none of our flags has a use for that.
    """
    require_plain(text)
    values = get_loader("yaml")(text)
    if _names_code(values):
        raise ValueError("class_path names code to import, which no setting of d3hr does")
    return values


def _names_code(values: Any) -> bool:
    if isinstance(values, list):
        return any(map(_names_code, values))
    return isinstance(values, dict) and ("class_path" in values or any(map(_names_code, values.values())))


set_loader(PLAIN, _plain_values, exceptions=(YAMLError, ValueError))


def _require_no_nul(values: Namespace) -> None:
    """Refuse a NUL character, which no path can have and the operating system takes for the end of one."""
    for flag, value in vars(values).items():
        if any("\0" in text for text in _texts(value)):
            raise SettingsError(f"--{flag} holds a NUL character.", found=repr(value), hint="take it out.")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in [*value, *(value.values() if isinstance(value, dict) else ())]:
            yield from _texts(part)


class _Parser(ArgumentParser):  # type: ignore[misc]  # jsonargparse is not typed here
    """A parser that takes whole flags only, and says what is wrong in characters that a terminal shows."""

    def __init__(self, **options: Any) -> None:
        super().__init__(parser_mode=PLAIN, allow_abbrev=False, **options)

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Namespace:
        """Parse a command line, by default the program's own; flags may be written with hyphens or underscores."""
        arguments = sys.argv[1:] if args is None else args
        return super().parse_args([_with_underscores(argument) for argument in arguments], *more, **options)

    def error(self, message: str, ex: Exception | None = None) -> None:
        super().error(printable(message, keep="\n"), ex)


def build_parser() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Return the parser of the program, and that of each command by its name."""
    parser = _Parser(prog="d3hr", description="Distil an image data set into a few images per class, and measure the result honestly.")
    parser.add_argument("--version", action="version", version=version("d3hr"))
    subcommands = parser.add_subcommands(dest="command", required=True)
    parsers = {}
    for name, function in COMMANDS.items():
        summary = (function.__doc__ or "").split("\n\n")[0]
        parsers[name] = _Parser(description=summary)
        parsers[name].add_argument(
            "--config", action="config", help="YAML file of settings, such as a settings.yaml written beside a result"
        )
        parsers[name].add_function_arguments(function, as_positional=True, skip=set(GROUPS))
        for kind in _groups(function).values():
            parsers[name].add_class_arguments(kind)
        parsers[name].add_argument("--json", action="store_true", help="print the result as JSON")
        parsers[name].add_argument("--debug", action="store_true", help="show the traceback of an error")
        subcommands.add_subcommand(name, parsers[name], help=summary)
    return parser, parsers


def _groups(function: Callable[..., Result]) -> dict[str, type[Any]]:
    """Return the parameters of a command that stand for flags it shares with others."""
    return {name: GROUPS[name] for name in signature(function).parameters if name in GROUPS}


def _with_underscores(argument: str) -> str:
    """Take --class-map for --class_map, and each --evaluation for one more."""
    flag, equals, value = argument.partition("=")
    if not flag.startswith("--") or len(flag) == 2:
        return argument
    flag = flag.replace("-", "_").replace("__", "--", 1)
    return flag + ("+" if flag in _REPEATED else "") + equals + value


def _without_config(settings: Namespace) -> Namespace:
    copy = settings.clone()
    copy.pop("config")
    return copy


def _complain(error: D3hrError, debug: bool) -> int:
    if debug:
        raise error
    print("error:", printable(str(error), keep="\n"), file=sys.stderr)
    return BAD_INPUT


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out; for that of the CPU, PyTorch has no exception of its own."""
    words = ("out of memory", "can't allocate memory", "Storage size calculation overflowed")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def _too_large(error: Exception) -> D3hrError:
    return SettingsError(
        "There is not enough memory for this.",
        found=str(error).splitlines()[0] if str(error) else "no memory left",
        hint="ask for fewer or smaller images, or give a smaller --batch_size; what is finished is kept.",
    )


def _explained(error: Exception) -> D3hrError:
    """Return what a person is told of an error, which is raised again where it is a fault of ours."""
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
