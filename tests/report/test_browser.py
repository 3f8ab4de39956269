"""The report in a real browser."""

from pathlib import Path

import pytest

from d3hr.data.dataset import ImageData
from d3hr.report.report import write_report
from tests.report.browser import Browser, find_chromium
from tests.report.realistic import HOSTILE, write_everything

ORDER = "[...document.querySelectorAll('table.sortable tbody tr')].map(row => row.cells[{column}].dataset.value)"
SORTED = "document.querySelectorAll('table.sortable thead th')[{column}].getAttribute('aria-sort')"


@pytest.fixture(scope="module")
def chromium() -> str:
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium on PATH, and apt-get is missing or could not install it")
    return path


def test_the_page_works_alone_in_a_browser(chromium: str, digits: ImageData, tmp_path: Path) -> None:
    """It loads nothing but itself, says nothing on the console, sorts, enlarges, and keeps a hostile name as text."""
    distilled = write_everything(digits, tmp_path)
    page = tmp_path / "page.html"
    beside = (tmp_path / "set-evaluation", tmp_path / "set-diagnosis")
    write_report(str(distilled), page, evaluations=beside[:1], diagnosis=beside[1])
    with Browser(chromium, tmp_path / "profile") as browser:
        browser.open(page)

        # Two classes without a figure stay last, in either direction; the keyboard sorts as well.
        column = browser.run("[...document.querySelectorAll('table.sortable thead th')].findIndex(th => th.innerText.includes('nearest'))")
        heading = f"document.querySelectorAll('table.sortable thead button')[{column}]"
        browser.run(f"{heading}.click()")
        falling = browser.run(ORDER.format(column=column))
        assert falling[-2:] == ["", ""]
        assert falling[:-2] == sorted(falling[:-2], key=float, reverse=True)
        assert browser.run(SORTED.format(column=column)) == "descending"
        browser.run(f"{heading}.focus()")
        browser.press("Enter")
        rising = browser.run(ORDER.format(column=column))
        assert rising == [*falling[-3::-1], "", ""]
        assert browser.run(SORTED.format(column=column)) == "ascending"
        browser.run("document.querySelector('table.sortable thead button').click()")
        assert set(browser.run(ORDER.format(column=0))) == set(distilled_names(distilled))
        assert browser.run(SORTED.format(column=column)) == "none"

        # An image is enlarged; arrows step on, Escape closes and gives the focus back.
        browser.run("document.querySelectorAll('#images button.zoom')[0].focus()")
        browser.press("Enter")
        assert browser.run("document.querySelector('dialog').open")
        caption = browser.run("document.querySelector('dialog p').textContent")
        browser.press("ArrowRight")
        assert browser.run("document.querySelector('dialog p').textContent") != caption
        # A dialog says that it was closed in a task of its own, after which the page gives the focus back.
        browser.run("window.left = new Promise(done => document.querySelector('dialog').addEventListener('close', done)), 0")
        browser.press("Escape")
        assert not browser.run("document.querySelector('dialog').open")
        assert browser.run("window.left.then(() => document.activeElement === document.querySelectorAll('#images button.zoom')[1])")

        # The hostile class: enlarged, chosen in the plane, and under the pointer.
        browser.run("[...document.querySelectorAll('button.zoom')].find(b => b.dataset.caption.startsWith('<img')).click()")
        assert HOSTILE in browser.run("document.querySelector('dialog p').textContent")
        browser.run("document.querySelector('dialog [data-close]').click()")
        browser.run("[...document.querySelectorAll('#embedding .legend button')].find(b => b.dataset.name.startsWith('<img')).click()")
        assert browser.run("document.querySelectorAll('.plane g:not(.dim)[data-class]').length") == 2
        browser.run(
            "document.querySelector('.plane .distilled g:not(.dim) circle').dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))"
        )
        assert HOSTILE in browser.run("document.querySelector('.peek').textContent")
        assert browser.run("document.querySelector('.peek img').naturalWidth") == digits.image_size
        assert browser.run("document.querySelectorAll('img[src=x], [onerror]').length") == 0

        # Every picture is there, nothing is wider than a phone, and nothing was asked of anyone.
        assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        assert browser.run("document.documentElement.scrollWidth") == 390
        requests = {event["request"]["url"] for event in browser.of("Network.requestWillBeSent")}
        assert {url for url in requests if not url.startswith("data:")} == {page.as_uri()}
        for kind in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Page.javascriptDialogOpening"):
            assert browser.of(kind) == []


def distilled_names(distilled: Path) -> tuple[str, ...]:
    from d3hr.sets.distilled_set import DistilledSet

    return DistilledSet.load(distilled).class_names
