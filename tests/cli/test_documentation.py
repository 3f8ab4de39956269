"""What the documentation and the messages say about the command line is what the parsers know."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from d3hr.cli.parser import COMMANDS, build_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *(file for file in sorted((ROOT / "docs").glob("*.md")) if file.name != "commands.md")]
LAUNCHER = re.compile(r"^.*?(?:\bpython -m d3hr|\s-m d3hr|(?<![\w./'\[-])d3hr)\s+(?=[a-z])")
"""What comes before the arguments of a command: variables, ``accelerate launch``, ``d3hr`` itself."""
OTHERS = {"--nproc_per_node"}
"""Flags of other programs that the text names."""


def code_lines(page: Path) -> Iterator[str]:
    """Yield the lines of a page's code blocks, indented or fenced, without comments; continued lines are joined."""
    fenced, line = False, ""
    for text in page.read_text(encoding="utf-8").splitlines():
        if text.startswith("```"):
            fenced = not fenced
        elif fenced or text.startswith("    "):
            line += re.sub(r"(^|\s)#.*", "", text).strip()
            if line.endswith("\\"):
                line = line[:-1]
                continue
            yield line
            line = ""


def command_lines(page: Path) -> list[str]:
    """Return the arguments of each ``d3hr`` command in a page's code blocks."""
    return [
        " ".join(line[match.end() :].split())
        for line in code_lines(page)
        if (match := LAUNCHER.match(line)) and not line.startswith(("pip", "import"))
    ]


def messages() -> Iterator[str]:
    """Yield the text of every string in the package that is no docstring; what is filled in at run time is a ``1``."""
    for file in sorted((ROOT / "d3hr").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "1" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.startswith("``"):
                yield node.value


def hints() -> list[str]:
    """Return the commands that messages advise: quoted, after ``Next:``, or as lines of their own."""
    found = [match for text in messages() for match in re.findall(r"(?:'|Next: |^)d3hr (?!worker)([a-z][^'\n]*)", text, re.MULTILINE)]
    return sorted(set(found))


def require_parses(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(arguments)
    if len(words) == 1 and words[0] in COMMANDS:
        return
    parser, _ = build_parser(words[:1])
    try:
        parser.parse_args(words)
    except SystemExit:
        pytest.fail(f"d3hr {arguments}\n{capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_parses(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in command_lines(page):
        require_parses(arguments, capsys)


def test_commands_are_found_in_pages_and_messages() -> None:
    assert "fit PHOTOS --out prior --preset tiny --max-minutes 30" in command_lines(ROOT / "README.md")
    assert len([arguments for page in PAGES for arguments in command_lines(page)]) > 40
    assert "fit DATA --out PRIOR" in hints()


@pytest.mark.parametrize("arguments", hints())
def test_every_command_that_a_message_advises_parses(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    require_parses(arguments, capsys)


@cache
def known_flags() -> set[str]:
    """Return every flag of the command reference, which is that of the parsers, as the last test makes sure."""
    return set(re.findall(r"--[a-z][\w-]*", (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "recipes").glob("*.yaml"))], ids=lambda page: page.name)
def test_every_flag_that_a_page_names_exists_and_has_hyphens(page: Path) -> None:
    named = set(re.findall(r"`(--[a-z][\w-]*)", page.read_text(encoding="utf-8"))) - OTHERS
    assert sorted(named - known_flags()) == []


def test_the_command_reference_is_that_of_the_parsers() -> None:
    reference = runpy.run_path(str(ROOT / "scripts" / "command_reference.py"))["reference"]()
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written == reference, "docs/commands.md is out of date: python scripts/command_reference.py"
