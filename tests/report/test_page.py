from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from d3hr.data.showing import contact_sheet
from d3hr.evaluation.protocols import protocol_named
from d3hr.evaluation.results import Evaluation, TrainingResult
from d3hr.report.charts import accuracy_chart, loss_chart
from d3hr.report.page import write_page

PROTOCOL = protocol_named("quick")
NAMES = {"d3hr": "ours", "random_real": "real"}
ROWS = [
    Evaluation(method, ipc, "convnet3", PROTOCOL, (TrainingResult(0.5, 0.6), TrainingResult(0.7, 0.8)))
    for ipc in (1, 10)
    for method in ("d3hr", "random_real")
]


class Tags(HTMLParser):
    """Collects tags and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def page(tmp_path: Path, **changes: Any) -> Tags:
    import torch

    picture = contact_sheet({"a": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)})
    values = {
        "data_name": "digits", "real_count": "9", "classes": ("a", "b"), "verdicts": ["wins"], "rows": ROWS, "best": {1: 0.6, 10: 0.6},
        "sheets": [{"picture": picture, "caption": "Distilled"}], "names": NAMES,
        "student": "convnet3", "protocol": PROTOCOL, "test_count": 5, "distillation_seeds": 3, "training_seeds": 2,
        "accuracy_chart": accuracy_chart(ROWS, legend=NAMES), "loss_chart": "", "facts": {"made by": "d3hr"}, "next_steps": "d3hr fit",
        **changes,
    }  # fmt: skip
    write_page(tmp_path / "index.html", "demo.html", **values)
    parser = Tags()
    parser.feed((tmp_path / "index.html").read_text())
    return parser


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    """Every source and link is inside the file."""
    for tag, attributes in page(tmp_path).tags:
        assert tag not in ("script", "link", "iframe")
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert "60.0 ± 14.1" in (tmp_path / "index.html").read_text()


def test_names_stay_text(tmp_path: Path) -> None:
    """A class or file name cannot add a tag."""
    hostile = "<img src=x onerror=alert(1)>"
    tags = page(tmp_path, data_name=hostile, verdicts=[hostile], facts={hostile: hostile}, next_steps=hostile).tags
    assert not any("onerror" in attributes for _, attributes in tags)


def test_charts_take_their_ink_from_the_page(tmp_path: Path) -> None:
    (tmp_path / "loss.csv").write_text("network,step,loss\nautoencoder,1,0.5\nautoencoder,2,0.2\ntransformer,1,1.0\ntransformer,2,0.9\n")
    for chart in (accuracy_chart(ROWS, legend=NAMES), loss_chart(tmp_path / "loss.csv")):
        assert chart.startswith("<svg")
        assert "currentColor" in chart
        assert "#010203" not in chart
