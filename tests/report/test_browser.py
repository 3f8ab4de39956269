"""The report in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect, sync_playwright

from d3hr.data.dataset import ImageData
from d3hr.report.report import write_report
from d3hr.sets.distilled_set import DistilledSet
from tests.report.realistic import HOSTILE, write_everything

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
MILLISECONDS = 30_000
"""After which a browser that does not answer fails the test."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs a Chromium on PATH: apt-get install --no-install-recommends chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=MILLISECONDS)
        yield browser
        browser.close()


def open_page(context: BrowserContext, file: Path, events: list[str]) -> Page:
    """Open a file; what the page requests, prints, raises or pops up goes to ``events``."""
    context.set_default_timeout(MILLISECONDS)

    def dismiss(dialog: Dialog) -> None:
        events.append(dialog.message)
        dialog.dismiss()

    page = context.new_page()
    page.on("request", lambda request: events.append(request.url))
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("dialog", dismiss)
    page.goto(file.as_uri())
    return page


@pytest.mark.slow
def test_the_page_works_alone_in_a_browser(browser: Browser, digits: ImageData, tmp_path: Path) -> None:
    """It loads nothing but itself, prints nothing on the console, sorts, enlarges, and keeps a hostile name as text."""
    distilled = write_everything(digits, tmp_path)
    file = tmp_path / "page.html"
    write_report(str(distilled), file, evaluations=(tmp_path / "set-evaluation",), diagnosis=tmp_path / "set-diagnosis")
    events: list[str] = []
    page = open_page(browser.new_context(), file, events)

    def values(column: int) -> list[str]:
        """Return what the rows of the table hold in one column, as they stand."""
        cells = page.locator("table.sortable tbody tr").locator(f"td:nth-child({column + 1}), th:nth-child({column + 1})")
        return [cell.get_attribute("data-value") or "" for cell in cells.all()]

    # Two classes without a figure stay last, in either direction; the keyboard sorts as well.
    headings = page.locator("table.sortable thead th")
    column = next(index for index, text in enumerate(headings.all_inner_texts()) if "nearest" in text)
    heading = headings.nth(column)
    heading.get_by_role("button").click()
    falling = values(column)
    assert falling[-2:] == ["", ""]
    assert falling[:-2] == sorted(falling[:-2], key=float, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").press("Enter")
    assert values(column) == [*falling[-3::-1], "", ""]
    assert heading.get_attribute("aria-sort") == "ascending"
    headings.get_by_role("button").first.click()
    assert set(values(0)) == set(DistilledSet.load(distilled).class_names)
    assert heading.get_attribute("aria-sort") == "none"

    # An image is enlarged; arrows step on, Escape closes and gives the focus back.
    images, dialog = page.locator("#images button.zoom"), page.locator("dialog")
    images.first.press("Enter")
    assert dialog.is_visible()
    caption = dialog.locator("p").text_content()
    page.keyboard.press("ArrowRight")
    assert dialog.locator("p").text_content() != caption
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden(timeout=MILLISECONDS)
    expect(images.nth(1)).to_be_focused(timeout=MILLISECONDS)

    # The hostile class: enlarged, chosen in the plane, and under the pointer.
    page.locator("button.zoom[data-caption^='<img']").first.click()
    assert HOSTILE in (dialog.locator("p").text_content() or "")
    dialog.locator("[data-close]").click()
    page.locator("#embedding .legend button[data-name^='<img']").click()
    assert page.locator(".plane g:not(.dim)[data-class]").count() == 2
    page.locator(".plane .distilled g:not(.dim) circle").first.hover()
    assert HOSTILE in (page.locator(".peek").text_content() or "")
    assert page.locator(".peek img").evaluate("image => image.naturalWidth") == digits.image_size
    assert page.locator("img[src=x], [onerror]").count() == 0

    # Every picture is there, nothing is wider than a phone, and nothing but the file was asked for.
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    phone = open_page(browser.new_context(viewport={"width": 390, "height": 800}, is_mobile=True), file, events)
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    assert {event for event in events if not event.startswith("data:")} == {file.as_uri()}
