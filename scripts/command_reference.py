"""Writes docs/commands.md, the reference of every command and flag: what each command shows for --help.

python scripts/command_reference.py
"""

from pathlib import Path

from d3hr.cli.parser import build_parser

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
START = """# Commands

Written by `python scripts/command_reference.py` from the parsers; a test compares them. Flags may
be written with hyphens or underscores. A flag without a default is left to the command, or to the
preset that it uses.
"""


def reference() -> str:
    """Return the page."""
    program, parsers = build_parser()
    helps = {"d3hr": program, **{f"d3hr {name}": parser for name, parser in parsers.items()}}
    return START + "".join(f"\n## {name}\n\n```text\n{parser.format_help().strip()}\n```\n" for name, parser in helps.items())


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
