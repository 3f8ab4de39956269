"""The parser of the command line: one table of commands, shared groups of flags, and help that a person can read.

A command is a typed function in the module of its name, and its parameters are its flags. Only the module of the command that is run, or
whose help is shown, is imported; no module of a command imports PyTorch before the command runs.
"""

from __future__ import annotations

import sys
import types
from argparse import SUPPRESS, Action
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from importlib.metadata import version
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, get_loader, set_loader
from yaml import YAMLError

from d3hr.errors import flag, printable

if TYPE_CHECKING:
    from d3hr.cli.output import Result

COMMANDS = {
    "demo": "the whole way on real handwritten digits, in minutes",
    "inspect": "what is in a folder of images, and what a prior makes of its classes",
    "fit": "a diffusion prior of your own classes",
    "plan": "what distilling and evaluating will cost, before anything runs",
    "distill": "a data set into a few images per class",
    "expand": "another number of images per class, from the statistics of a set",
    "update": "a set anew from data that have grown",
    "baseline": "a set by another method, such as random real images",
    "train-teacher": "a network trained on all real images, for soft labels",
    "import-teacher": "a network that others trained, for soft labels",
    "evaluate": "students trained on a set, next to what it must beat",
    "compare": "many methods under equal conditions",
    "diagnose": "what is wrong with a set",
    "recipe": "a whole setting of the paper with one command",
    "report": "one page about a set",
}
"""Command -> what it makes or shows, as ``d3hr --help`` lists it."""
REPEATED = frozenset({"--evaluation"})
"""Flags that may be given several times; each adds to the list."""
SHOWN_FIRST = 6
"""Flags, the first of a command's own, that its help shows before all others."""
_PLAIN_YAML = "plain yaml"
_METAVARS = {int: "N", float: "X", str: "TEXT"}


def command_function(name: str) -> Callable[..., Result]:
    """Return the function of a command."""
    plain = name.replace("-", "_")
    function: Callable[..., Result] = getattr(import_module(f"d3hr.cli.{plain}"), plain)
    return function


def flag_groups(function: Callable[..., Result]) -> dict[str, type[Any]]:
    """Return the parameters of a command that are groups of flags, shared with other commands: name -> class of the group."""
    from d3hr.cli.options import GROUPS

    return {name: GROUPS[name] for name in signature(function).parameters if name in GROUPS}


def command_parser(name: str) -> Parser:
    """Return the parser of one command."""
    function = command_function(name)
    parser = Parser(description=(function.__doc__ or "").split("\n\n")[0])
    general = parser._action_groups[-1]
    groups = flag_groups(function)
    parser.add_function_arguments(function, as_positional=True, skip=set(groups))
    for place in [name for name, parameter in signature(function).parameters.items() if _may_be_left_out(parameter)]:
        action = parser._option_string_actions.pop(f"--{place}")
        action.option_strings, action.nargs = [], "?"
    own = parser._action_groups[-1]
    own.title, more = "most used", parser.add_argument_group("more")
    flags = [action for action in own._group_actions if action.option_strings]
    more._group_actions += flags[SHOWN_FIRST:]
    own._group_actions = [action for action in own._group_actions if action not in more._group_actions]
    for kind in groups.values():
        parser.add_class_arguments(kind)
        parser._action_groups[-1].title = (kind.__doc__ or "").partition(":")[0].lower()
    parser.add_argument("--config", action="config", help="YAML file of settings, such as the settings.yaml saved with a result")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for action in general._group_actions:
        if action.dest == "print_config":
            action.help = "print every setting as YAML, and do nothing else"
    general.title = "of every command"
    parser._action_groups = [group for group in parser._action_groups if group._group_actions and group is not general] + [general]
    parser.usage = _usage(name, parser._actions)
    return parser


def _may_be_left_out(parameter: Parameter) -> bool:
    """Return whether an argument is named by its place and may be missing: it has no default, and may be None."""
    return parameter.default is Parameter.empty and type(None) in get_args(parameter.annotation)


def build_parser(commands: Collection[str] = tuple(COMMANDS)) -> tuple[Parser, dict[str, Parser]]:
    """Return the parser of the program, and that of each command by its name; only those of ``commands`` have flags."""
    program = Parser(prog="d3hr", description="Distil an image data set into a few images per class, and measure the result honestly.")
    program.add_argument("--version", action="version", version=version("d3hr"), help="show the version")
    subcommands = program.add_subcommands(
        dest="command", required=True, title="commands", description="'d3hr COMMAND --help' shows the flags of one.", metavar="COMMAND"
    )
    parsers = {name: command_parser(name) if name in commands else Parser() for name in COMMANDS}
    for name, parser in parsers.items():
        subcommands.add_subcommand(name, parser, help=COMMANDS[name])
    return program, parsers


def _with_underscores(argument: str) -> str:
    """Take --class-map for --class_map, and each --evaluation for one more."""
    flag, equals, value = argument.partition("=")
    if not flag.startswith("--") or len(flag) == 2:
        return argument
    flag = flag.replace("-", "_").replace("__", "--", 1)
    return flag + ("+" if flag in REPEATED else "") + equals + value


def with_hyphens(flag: str) -> str:
    """Return a flag as it is shown: --class-map of --class_map."""
    return flag.replace("_", "-")


class Help(DefaultHelpFormatter):  # type: ignore[misc]  # jsonargparse is not typed here
    """Shows flags with hyphens, the values that each takes, and defaults that are values."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"max_help_position": 30, "width": 100, **options})

    def _format_action_invocation(self, action: Action) -> str:
        if isinstance(action.choices, dict):  # the commands
            return "one of:"
        if not action.option_strings:
            return str(super()._format_action_invocation(action))
        metavar = _metavar(action)
        return ", ".join(map(with_hyphens, action.option_strings)) + (f" {metavar}" if metavar else "")

    def _get_help_string(self, action: Action) -> str:
        notes = ["required"] if action.required and action.option_strings else []
        if action.option_strings and action.default not in (None, SUPPRESS, (), []) and action.default is not False:
            notes.append(f"default: {_value(action.default)}")
        return (action.help or "") + (f" ({', '.join(notes)})" if notes else "")


class Parser(ArgumentParser):  # type: ignore[misc]  # jsonargparse is not typed here
    """A parser that takes whole flags only, reads values as plain YAML, and complains in characters that a terminal shows."""

    def __init__(self, **options: Any) -> None:
        super().__init__(parser_mode=_PLAIN_YAML, allow_abbrev=False, formatter_class=Help, **options)

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Namespace:
        """Parse a command line, by default the program's own; flags may be written with hyphens or underscores."""
        arguments = sys.argv[1:] if args is None else args
        return super().parse_args([_with_underscores(argument) for argument in arguments], *more, **options)

    def error(self, message: str, ex: Exception | None = None) -> None:
        """Print a complaint, which names flags as they are written, and end with exit code 2."""
        missing, found, names = message.partition("the following arguments are required: ")
        if found:
            message = missing + found + ", ".join(self._as_written(name) for name in names.split(", "))
        super().error(printable(message, keep="\n"), ex)

    def _as_written(self, destination: str) -> str:
        """Return --out of fit.out, and DATA, which has no flag, of fit.data."""
        command, _, name = destination.rpartition(".")
        parser = self._subcommands_action.choices.get(command, self) if command and self._subcommands_action else self
        positional = any(action.dest == name and not action.option_strings for action in parser._actions)
        return name.upper() if positional else flag(name)


def _usage(name: str, actions: Sequence[Action]) -> str:
    """Return the command with what it cannot do without."""
    places = [action for action in actions if not action.option_strings]
    positionals = [f"[{action.dest.upper()}]" if action.nargs == "?" else action.dest.upper() for action in places]
    required = [
        f"{with_hyphens(action.option_strings[0])} {_metavar(action)}" for action in actions if action.option_strings and action.required
    ]
    return " ".join(["d3hr", name, *positionals, *required, "[flags]"])


def _metavar(action: Action) -> str:
    """Return the values that a flag takes, in a few characters."""
    kind = getattr(action, "_typehint", None)
    if kind is None:
        return "FILE" if action.dest == "config" else ""
    return _values_of(kind)


def _values_of(kind: Any) -> str:
    options, origin = get_args(kind), get_origin(kind)
    if origin is Literal:
        if len(options) == 1:
            return str(options[0])
        return "{" + ",".join(map(str, options)) + "}"
    if origin in (Union, types.UnionType):
        return "|".join(_values_of(option) for option in options if option is not type(None))
    if kind is bool:
        return "{true,false}"
    if origin is dict:
        return "'{name: value}'"
    if origin is not None and options:
        return f"'[{_values_of(options[0])}, ...]'"
    return _METAVARS.get(kind, "VALUE")


def _value(default: Any) -> str:
    if isinstance(default, list | tuple):
        return "[" + ", ".join(map(str, default)) + "]"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _plain_values(text: str) -> Any:
    """Read the YAML of a --config file, or of a value on the command line, as values alone.

    jsonargparse would import whatever a ``class_path`` in it names; no flag of d3hr has a use for that.
    """
    from d3hr.fileio.structured import require_plain

    require_plain(text)
    values = get_loader("yaml")(text)
    if _names_code(values):
        raise ValueError("class_path names code to import, which no setting of d3hr does")
    return values


def _names_code(values: Any) -> bool:
    if isinstance(values, list):
        return any(map(_names_code, values))
    return isinstance(values, dict) and ("class_path" in values or any(map(_names_code, values.values())))


set_loader(_PLAIN_YAML, _plain_values, exceptions=(YAMLError, ValueError))
