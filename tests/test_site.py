"""The documentation site builds strictly, and works in a real browser without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.report import test_browser
from tests.report.test_browser import MILLISECONDS, open_page

ROOT = Path(__file__).parents[1]
browser = test_browser.browser
LOADED = re.compile(r'<(?:script|img|iframe|source)[^>]*\ssrc="(?!data:)(\w+:)?//|<link[^>]*stylesheet[^>]*href="(\w+:)?//')
"""What a page would load from elsewhere."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = {page.relative_to(site).as_posix(): page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    assert {"index.html", "api.html", "SECURITY.html", "benchmarks/index.html"} <= pages.keys()
    assert [page for page, text in pages.items() if LOADED.search(text)] == []


@pytest.mark.slow
def test_what_the_repository_has_outside_docs_is_reached(site: Path) -> None:
    """Kept results, the benchmarks' page and its way back, the README's table."""
    results, benchmarks, first = (
        (site / page).read_text(encoding="utf-8") for page in ("results.html", "benchmarks/index.html", "index.html")
    )
    assert 'href="benchmarks/index.html"' in results
    linked = re.findall(r'href="(benchmarks/[^"]+\.json)"', results)
    assert len(linked) > 40 and all((site / file).is_file() for file in linked)
    assert 'href="../speed.html#inversion"' in benchmarks
    assert "<td>real images: random</td>" in first


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_page_works_from_the_disk(browser: Browser, site: Path, scheme: str) -> None:
    """On a phone and a desk, every picture is there, nothing is wider than the screen, nothing else is asked for, and the search finds."""
    for width in (390, 1280):
        events: list[str] = []
        context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": 900})
        page = open_page(context, site / "index.html", events)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 3 * 128) == (scheme == "dark")
        assert [event for event in events if not event.startswith(("file:", "data:", "blob:"))] == []
        if width > 390:
            page.get_by_placeholder("Search").fill("skewness")
            expect(page.locator(".md-search-result__link").first).to_be_visible(timeout=MILLISECONDS)
        context.close()
