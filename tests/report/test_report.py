import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from d3hr.__main__ import main
from d3hr.data.dataset import ImageData
from d3hr.data.opening import load_images
from d3hr.diagnostics.diagnose import diagnose
from d3hr.errors import ClassMismatch, D3hrError, OutputError
from d3hr.fileio.atomic import read_json
from d3hr.methods.job import MethodInputs
from d3hr.methods.registry import METHODS
from d3hr.report.report import MARKER, write_report
from tests.conftest import MakeFolder
from tests.report.realistic import HOSTILE, QUOTED, write_everything


class Page(HTMLParser):
    """Collects the tags, attributes and text of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def everything(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with its evaluation and diagnosis beside it; one class has a hostile name."""
    return write_everything(digits, tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="module")
def page(everything: Path) -> Page:
    assert main(["report", str(everything)]) == 0
    return Page(everything.with_name("set-report.html"))


@pytest.fixture
def copied(everything: Path, tmp_path: Path) -> Path:
    """The same set, to be damaged."""
    shutil.copytree(everything.parent, tmp_path / "copy")
    (tmp_path / "copy" / "set-report.html").unlink(missing_ok=True)
    return tmp_path / "copy" / "set"


def sections(page: Page) -> set[str | None]:
    return {attributes["id"] for tag, attributes in page.tags if tag == "section" and "id" in attributes}


def test_every_section_is_filled(page: Page) -> None:
    """Nothing is left to fill, so no line tells of a command."""
    assert sections(page) == {
        "images", "nearest", "accuracy", "signatures", "distances", "normality", "embedding", "per-class", "confusion", "protocol",
        "origin",
    }  # fmt: skip
    assert "d3hr evaluate" not in page.text
    assert "d3hr diagnose" not in page.text


def test_names_stay_text_everywhere(page: Page) -> None:
    """The hostile class, method and signature add no tag and no attribute, in HTML, in attributes and in SVG."""
    assert HOSTILE in page.text
    assert QUOTED in page.text
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert tag != "img" or (attributes["src"] or "").startswith("data:image/png;base64,")
    captions = [attributes["data-caption"] or "" for _, attributes in page.tags if "data-caption" in attributes]
    assert all(any(caption.startswith(name) for caption in captions) for name in (HOSTILE, QUOTED))


def test_the_page_asks_nothing_of_a_network(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert (attributes.get("href") or attributes.get("xlink:href") or "#").startswith("#")
    assert "url(http" not in page.source


def test_the_policy_lets_only_this_script_run(page: Page) -> None:
    """The policy states the SHA-256 of the one script."""
    scripts = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    assert len(scripts) == 1
    policy = next(str(attributes["content"]) for _, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    expected = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{expected}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_ids_occur_once(page: Page) -> None:
    """Charts may share what they define under one id (markers, clips), which is named by its content; nothing else may."""
    counts = Counter(attributes["id"] for tag, attributes in page.tags if "id" in attributes and tag not in ("path", "clippath"))
    assert max(counts.values()) == 1


def test_hard_and_soft_labels_share_no_table(page: Page) -> None:
    """Two protocols make two charts and two tables, each headed by its labels."""
    assert page.source.count('<table class="accuracies">') == 2
    assert "convnet3, hard labels, protocol quick" in page.text
    assert "convnet3, soft labels, protocol soft" in page.text


def test_the_headline_is_that_of_the_sets_own_row(page: Page, everything: Path) -> None:
    """Of the two rows of its method and IPC, that with the confusion matrix: 83.8 against 86.0 is 2.2 points, over sqrt(2) * 1.2 = 1.7."""
    assert "2.2 points below random real images: 83.8 ± 1.2 % against 86.0 ± 1.2 %, outside the spread of the runs." in (
        page.text.replace("\N{NO-BREAK SPACE}", " ")
    )


def test_every_protocol_field_and_setting_is_printed(page: Page, everything: Path) -> None:
    rows = read_json(everything.with_name("set-evaluation") / "results.json")
    manifest = read_json(everything / "manifest.json")
    for name in [*rows[0]["protocol_settings"], *manifest["settings"], *manifest["versions"], *manifest["data"]]:
        assert f">{name}<" in page.source


def test_a_set_alone_tells_what_is_missing(everything: Path, tmp_path: Path) -> None:
    """Without results and diagnosis the images and the origin stand, and every other section names its command."""
    write_report(str(everything), tmp_path / "alone.html")
    page = Page(tmp_path / "alone.html")
    assert "has not been measured" in page.text
    assert sections(page) >= {"images", "accuracy", "normality", "origin"}
    assert page.text.count("d3hr evaluate") >= 3
    assert page.text.count("d3hr diagnose") >= 5
    assert "<svg" not in page.source


def test_a_plain_folder_has_a_report(image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another tool's images, with the rows of the demo's older form: no names, no seeds apart, no test."""
    image_folder({"ant & bee": 2, "cat": 2})
    monkeypatch.chdir(tmp_path)
    row = {"ipc": 2, "student": "convnet3", "protocol": "quick", "labels": "hard", "accuracy_std": 0.0, "seeds": 1}
    rows = [{"method": "folder", "accuracy_mean": 0.75, **row}, {"method": "random_real", "accuracy_mean": 0.5, **row}]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results.json").write_text(json.dumps(rows))
    assert main(["report", "images", "--evaluation", "results", "--out", "page.html"]) == 0
    page = Page(tmp_path / "page.html")
    assert "25.0 points above random real images" in page.text
    assert "with one run, the spread is not known" in page.text
    assert "ant & bee" in page.text


def test_a_packed_set_shows_single_images_and_says_so(image_folder: MakeFolder, tmp_path: Path) -> None:
    """Four images of 8 px in each of two stored images of 16: eight a class, each next to its own nearest real image, which it is. The
    row of the set is the packed one, not the better one of sets that are not."""
    images = load_images(image_folder({"ant": 16, "bee": 16}, size=16))
    make = METHODS["random_real"].make
    packed = make(MethodInputs(images, 16), tmp_path / "set", ipc=2, shared=tmp_path / "shared", pack=2)
    diagnose(packed, images).save(tmp_path / "diagnosis")
    row = {"method": "random_real", "ipc": 2, "student": "convnet3", "protocol": "quick", "labels": "hard", "accuracy_std": 0.0, "seeds": 1}
    rows = [{**row, "accuracy_mean": 0.75}, {**row, "accuracy_mean": 0.5, "pack": 2}]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results.json").write_text(json.dumps(rows))
    said = write_report(str(packed.path), tmp_path / "page.html", evaluations=[tmp_path / "results"], diagnosis=tmp_path / "diagnosis")
    assert said == ["50.0\N{NO-BREAK SPACE}% of real test images are classified right."]
    page = Page(tmp_path / "page.html")
    assert "packed 2x2, 4 images per stored image" in page.text and "2 stored images each" in page.text
    pictures = [attributes for tag, attributes in page.tags if tag == "button" and "data-picture" in attributes]
    assert len(pictures) == 16
    pairs = [page.tags[place + 1 : place + 3] for place, (_, given) in enumerate(page.tags) if given.get("class") == "zoom pair"]
    assert len(pairs) == 10 and all(ours[1]["src"] == real[1]["src"] for ours, real in pairs)


def test_statistics_alone_have_a_report(copied: Path) -> None:
    """A set of IPC 0 has no picture, and says how to make some."""
    manifest = read_json(copied / "manifest.json")
    manifest["ipc"] = 0
    for entry in manifest["classes"]:
        entry |= {"images": 0, "sources": []}
    (copied / "manifest.json").write_text(json.dumps(manifest))
    write_report(str(copied), copied.with_name("page.html"))
    assert "d3hr expand" in Page(copied.with_name("page.html")).text


@pytest.mark.slow
def test_evaluations_are_joined(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--evaluation given twice reads both; a row that stands in both counts once."""
    first = copied.with_name("set-evaluation")
    rows = read_json(first / "results.json")
    other = copied.with_name("other")
    other.mkdir()
    (other / "results.json").write_text(json.dumps([rows[0], {**rows[0], "student": "resnet18"}]))
    assert main(["report", str(copied), "--evaluation", str(first), "--evaluation", str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluations"] == [str(first), str(other)]
    assert copied.with_name("set-report.html").read_text().count('<table class="accuracies">') == 3


def test_only_a_report_is_replaced(everything: Path, tmp_path: Path) -> None:
    """A file without the marker stays as it is."""
    out = tmp_path / "page.html"
    out.write_text("my own page")
    with pytest.raises(OutputError, match="not a report"):
        write_report(str(everything), out)
    assert out.read_text() == "my own page"
    out.write_text(f"<html>{MARKER}</html>")
    write_report(str(everything), out)
    assert "<section" in out.read_text()
    assert MARKER in out.read_text()
    with pytest.raises(OutputError, match="not a report"):
        write_report(str(everything), tmp_path)


def broken_results(rows: list[dict[str, Any]], how: str) -> Any:
    own = next(row for row in rows if "confusion" in row)
    match how:
        case "no list":
            return {"rows": rows}
        case "no method":
            del own["method"]
        case "over 1":
            own["accuracy_mean"] = 83.8
        case "no number":
            own["accuracy_mean"] = float("nan")
        case "confusion":
            own["confusion"] = own["confusion"][:-1]
        case "labels":
            own["labels"] = "medium"
        case "classes":
            own["class_names"] = [f"other {name}" for name in own["class_names"]]
    return rows


@pytest.mark.parametrize("how", ["no list", "no method", "over 1", "no number", "confusion", "labels", "classes"])
def test_damaged_results_are_refused(copied: Path, how: str) -> None:
    file = copied.with_name("set-evaluation") / "results.json"
    file.write_text(json.dumps(broken_results(read_json(file), how)))
    with pytest.raises(D3hrError):
        write_report(str(copied), copied.with_name("page.html"), evaluations=[file.parent])
    assert not copied.with_name("page.html").exists()


def test_damaged_diagnoses_are_refused(copied: Path) -> None:
    """A file cut short, an unknown status, other classes, and a nearest image that is none."""
    folder = copied.with_name("set-diagnosis")
    text = (folder / "diagnosis.json").read_text()
    for damaged in (text[:-20], text.replace('"failure"', '"dreadful"'), "[]", '"' + "[" * 10):
        (folder / "diagnosis.json").write_text(damaged)
        with pytest.raises(D3hrError, match="damaged"):
            write_report(str(copied), copied.with_name("page.html"), diagnosis=folder)
    (folder / "diagnosis.json").write_text('{"per_class": {"elephant": {"mmd": 1}}}')
    with pytest.raises(ClassMismatch, match="elephant"):
        write_report(str(copied), copied.with_name("page.html"), diagnosis=folder)
    (folder / "diagnosis.json").write_text(text)
    next((folder / "nearest").glob("*/00000.png")).write_bytes(b"no image")
    with pytest.raises(D3hrError, match="damaged"):
        write_report(str(copied), copied.with_name("page.html"), diagnosis=folder)


def nothing_known(values: Any) -> Any:
    """Put null in place of every number."""
    if isinstance(values, dict):
        return {name: value if name in ("level", "index") else nothing_known(value) for name, value in values.items()}
    if isinstance(values, list):
        return [nothing_known(value) for value in values]
    return None if isinstance(values, int | float) else values


def test_a_diagnosis_without_numbers_is_shown(copied: Path) -> None:
    """Any number may be null: points without a place are not drawn, figures are dashes."""
    folder = copied.with_name("set-diagnosis")
    known = read_json(folder / "diagnosis.json")
    (folder / "diagnosis.json").write_text(json.dumps(nothing_known(known)))
    write_report(str(copied), copied.with_name("page.html"), diagnosis=folder)
    text = Page(copied.with_name("page.html")).text
    assert "memorisation" in text
    assert "Not drawn yet" in text
    (folder / "diagnosis.json").write_text(json.dumps(dict.fromkeys(known)))
    write_report(str(copied), copied.with_name("page.html"), diagnosis=folder)


def test_a_missing_folder_is_named(everything: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(everything), "--evaluation", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
