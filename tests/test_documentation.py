"""The pages can be read and followed: columns, links, and the files that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import d3hr
from tests.cli.test_documentation import messages

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COLUMNS = 100
LINK = re.compile(r"\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_lines_end_within_the_columns(page: Path) -> None:
    """Rows of tables, links and the sources of a table in the results may be longer."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > COLUMNS and not line.startswith("|") and not LINK.search(line)] == []


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not link.startswith("http") and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    assert broken == []


@each_page
def test_the_python_files_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`([\w/-]+/[\w-]+\.py)`", page.read_text(encoding="utf-8")))
    assert [file for file in sorted(named) if not (ROOT / file).is_file() and not (ROOT / "d3hr" / file).is_file()] == []


def test_the_page_about_python_has_every_public_name_once() -> None:
    named = re.findall(r"^::: d3hr\.(\w+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == d3hr.__all__


def test_the_messages_of_troubleshooting_are_those_of_the_code() -> None:
    """Each is a string of the code, of which at least nine letters are fixed, or ends in "..." after what one begins with."""
    known = [text.split("1") for text in messages() if len(re.findall("[a-z]", text)) >= 9]
    patterns = [re.compile("(.+?)".join(map(re.escape, parts)), re.DOTALL) for parts in known]
    beginnings = {f"{parts[0].strip()} ..." for parts in known}
    quoted = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(quoted) >= 20
    assert [each for each in quoted if each not in beginnings and not any(pattern.fullmatch(each) for pattern in patterns)] == []
