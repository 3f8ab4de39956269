"""Writes docs/commands.md, the reference of every command and option, from the parsers themselves.

python scripts/command_reference.py
"""

import argparse
import types
import typing
from collections.abc import Iterable
from pathlib import Path

from d3hr.__main__ import build_parser

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
START = """# Commands

Written by `python scripts/command_reference.py` from the parsers; a test compares them. Options may
be written with hyphens or underscores. An option without a default is left to the command, or to
the preset that it uses.
"""
NONE = type(None)


def reference() -> str:
    """Return the page."""
    parsers = build_parser()[1]
    per_command = {name: {_line(action) for action in _actions(parser._actions)} for name, parser in parsers.items()}
    shared = set.intersection(*per_command.values())
    first = next(iter(parsers.values()))
    parts = [START, "## Every command", _table(line for line in map(_line, _actions(first._actions)) if line in shared)]
    for name, parser in parsers.items():
        parts += [f"## {name}", f"    {_usage(name, parser)}", " ".join((parser.description or "").split())]
        for group in parser._action_groups:
            lines = [line for line in map(_line, _actions(group._group_actions)) if line not in shared]
            if lines:
                parts += [*_title(group, parser), _table(lines)]
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def _actions(actions: Iterable[argparse.Action]) -> list[argparse.Action]:
    return [action for action in actions if action.help != argparse.SUPPRESS]


def _title(group: argparse._ArgumentGroup, parser: argparse.ArgumentParser) -> list[str]:
    """Return the heading of a group of options, unless it is that of argparse or the summary of the command."""
    title = " ".join((group.title or "").split())
    generic = title in ("options", "positional arguments") or " ".join((parser.description or "").split()).startswith(title)
    return [] if generic else [f"### {title}"]


def _usage(name: str, parser: argparse.ArgumentParser) -> str:
    given = _actions(parser._actions)
    places = [action.dest.upper() for action in given if not action.option_strings]
    required = [f"{_flag(action)} {_value(action)}" for action in given if action.option_strings and action.required]
    return " ".join(["d3hr", name, *places, *required, "[options]"])


def _table(lines: Iterable[str]) -> str:
    return "\n".join(["| | values | default | |", "|---|---|---|---|", *lines])


def _line(action: argparse.Action) -> str:
    cells = [f"`{_flag(action)}`", _values(action), _default(action), " ".join(str(action.help or "").split())]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _flag(action: argparse.Action) -> str:
    """Return the longest spelling of an option, with hyphens; a positional argument in capitals."""
    plain = [flag for flag in action.option_strings if not flag.endswith("+")]
    return max(plain, key=len).replace("_", "-") if plain else action.dest.upper()


def _value(action: argparse.Action) -> str:
    return _flag(action).lstrip("-").upper()


def _values(action: argparse.Action) -> str:
    """Return which values an option takes; nothing for a switch."""
    hint = getattr(action, "_typehint", None) or action.type
    if action.choices is not None:
        return ", ".join(f"`{choice}`" for choice in action.choices)
    return "" if action.nargs == 0 else _kind(hint) if hint is not None else "text"


def _kind(hint: object) -> str:
    """Return a type in words: without None, which is the absence of the option, and a literal as its values."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_kind(kind) for kind in typing.get_args(hint) if kind is not NONE)
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    if arguments := [kind for kind in typing.get_args(hint) if kind is not Ellipsis]:
        return "list of " + " or ".join(dict.fromkeys(_kind(kind) for kind in arguments))
    return {str: "text", int: "integer", float: "number", bool: "`true`, `false`", Path: "path", dict: "mapping", list: "list"}.get(
        hint, getattr(hint, "__name__", "text")
    )


def _default(action: argparse.Action) -> str:
    if action.required:
        return "required"
    if action.nargs == 0 or action.default in (None, argparse.SUPPRESS):
        return ""
    values = action.default if isinstance(action.default, tuple | list) else [action.default]
    return "`" + " ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values) + "`"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
