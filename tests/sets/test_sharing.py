"""A distilled set as PyTorch, Hugging Face, the Hub and a notebook take it."""

from __future__ import annotations

import base64
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from torch.utils.data import DataLoader

import d3hr
from d3hr import DistilledSet, load_images, random_real
from d3hr.data.dataset import ImageData
from d3hr.errors import DamagedFile, DistilledSetError, OutputError
from d3hr.methods.job import MethodInputs
from d3hr.methods.registry import METHODS
from d3hr.sets.image_set import pictures_of
from tests.conftest import MakeFolder

CLASSES = {"a<b": 5, "10": 4, "9": 6}


@pytest.fixture
def images(image_folder: MakeFolder) -> ImageData:
    return load_images(image_folder(CLASSES, size=16))


@pytest.fixture
def chosen(images: ImageData, tmp_path: Path) -> DistilledSet:
    return random_real(images, tmp_path / "s<b>t", ipc=2, image_size=16)


def test_it_is_a_data_set_of_pytorch(chosen: DistilledSet) -> None:
    """An index gives what that of an ImageData gives."""
    folder = load_images(chosen.path / "train", keep_duplicates=True)
    assert len(chosen) == len(folder) == 6
    for entry in chosen.manifest.classes:
        for place, pixels in enumerate(folder.pick(entry.folder, [0, 1])):
            image, label = chosen[2 * entry.label + place]
            assert torch.equal(image, pixels)
            assert label == entry.label
    image, label = chosen[-1]
    assert isinstance(label, int) and torch.equal(image, chosen[5][0])
    some, labels = chosen[1:5:2]
    assert [its for _, its in chosen] == [0, 0, 1, 1, 2, 2]
    assert torch.equal(some, torch.stack([chosen[1][0], chosen[3][0]])) and labels.tolist() == [0, 1]
    assert chosen[6:][0].shape == (0, 3, 16, 16)
    with pytest.raises(IndexError):
        chosen[6]


def test_a_loader_gives_every_picture(chosen: DistilledSet) -> None:
    batches = list(DataLoader(pickle.loads(pickle.dumps(chosen)), batch_size=4))
    assert torch.equal(torch.cat([labels for _, labels in batches]), chosen.labels)
    pixels = (torch.cat([images for images, _ in batches]) + 1) * 127.5
    assert torch.equal(pixels.round().to(torch.uint8), chosen.images)


def test_of_a_packed_set_it_gives_the_single_pictures(images: ImageData, tmp_path: Path) -> None:
    packed = METHODS["random_real"].make(MethodInputs(images, 16), tmp_path / "packed", ipc=1, shared=tmp_path / "shared", pack=2)
    assert len(packed) == 12 and sum(packed.counts.values()) == 3
    pictures, labels = pictures_of(packed).tensors()
    ours = packed[:]
    assert torch.equal(((ours[0] + 1) * 127.5).round().to(torch.uint8), pictures)
    assert torch.equal(ours[1], labels)
    assert packed[12:][0].shape == (0, 3, 8, 8)
    assert packed.to_datasets().num_rows == 3


def test_a_damaged_image_is_named(chosen: DistilledSet) -> None:
    (chosen.path / "train" / "9" / "00000.png").write_bytes(b"no image")
    with pytest.raises(DistilledSetError, match=r"00000\.png is damaged"):
        list(chosen)


def test_it_becomes_a_table_of_datasets(chosen: DistilledSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(chosen.path)
    table = DistilledSet.load(".").to_datasets()
    monkeypatch.chdir(tmp_path)
    assert table.features["label"].names == list(chosen.class_names) == ["10", "9", "a<b"]
    assert isinstance(table.features["image"], datasets.Image)
    assert table[3]["image"].size == (16, 16)
    again = load_images(table, keep_duplicates=True)
    assert torch.equal(again.tensors()[0], chosen.images) and again.counts == chosen.counts


class Hub:
    """What the Hugging Face Hub answers about one repository, and what is sent to it."""

    def __init__(self, files: dict[str, bytes], private: bool) -> None:
        self.files, self.private, self.commits = files, private, 0
        self.address = ""

    def answer(self, method: str, path: str, body: bytes) -> Any:
        path = path.partition("?")[0]
        if path.endswith("/repos/create"):
            return {"url": f"{self.address}/datasets/me/photos", "id": "me/photos"}
        if path.endswith("/validate-yaml"):
            content = json.loads(body)["content"]
            yaml.safe_load(content.split("---")[1])
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del self.files[line["value"]["path"]]
            self.commits += 1
            return {"commitUrl": f"{self.address}/datasets/me/photos/commit/1", "commitOid": "1", "success": True}
        if "/tree/" in path:
            return [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.files]
        if method == "GET" and "/api/datasets/me/photos" in path:
            return {"id": "me/photos", "private": self.private, "sha": "0" * 40, "siblings": [{"rfilename": name} for name in self.files]}
        raise AssertionError(f"{method} {path}")


MakeHub = Callable[..., Hub]


@pytest.fixture
def make_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeHub]:
    servers: list[ThreadingHTTPServer] = []

    def make(files: dict[str, bytes] | None = None, *, private: bool = False) -> Hub:
        hub = Hub({".gitattributes": b"", **(files or {})}, private)

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                content = json.dumps(hub.answer(self.command, self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _serve  # noqa: N815 (as http.server calls them)

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        return hub

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def test_what_is_sent_to_the_hub_is_the_set(chosen: DistilledSet, make_hub: MakeHub, tmp_path: Path) -> None:
    """Other programs open it there by its card, and d3hr as the same set; what else lies in the folder stays."""
    (chosen.path / "notes.txt").write_text("mine")
    hub = make_hub()
    assert chosen.push_to_hub("me/photos") == f"{hub.address}/datasets/me/photos"
    assert hub.commits == 1 and "notes.txt" not in hub.files
    for name, content in hub.files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    assert torch.equal(DistilledSet.load(tmp_path / "copy").images, chosen.images)
    table = datasets.load_dataset(str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"))
    assert list(table) == ["train"] and table["train"].num_rows == 6
    assert {table["train"].features["label"].int2str(row["label"]) for row in table["train"]} == {"10", "9", "a%3Cb"}
    card = hub.files["README.md"].decode()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "other" and front["license_name"] == "of-the-source-images"
    assert "contains 6 real images" in card


def test_an_earlier_set_is_replaced(chosen: DistilledSet, images: ImageData, make_hub: MakeHub, tmp_path: Path) -> None:
    hub = make_hub()
    chosen.push_to_hub("me/photos")
    random_real(images, tmp_path / "small", ipc=1, image_size=16).push_to_hub("me/photos")
    assert sum(name.endswith("00000.png") for name in hub.files) == 3
    assert not any(name.endswith("00001.png") for name in hub.files)


def test_nothing_else_on_the_hub_is_touched(chosen: DistilledSet, make_hub: MakeHub) -> None:
    hub = make_hub({"train/0.parquet": b"years of work"})
    with pytest.raises(OutputError, match="no distilled set") as caught:
        chosen.push_to_hub("me/photos")
    assert "train/0.parquet" in caught.value.found
    assert hub.commits == 0


def test_what_shall_be_private_is_not_put_into_a_public_repository(chosen: DistilledSet, make_hub: MakeHub) -> None:
    hub = make_hub(private=False)
    with pytest.raises(OutputError, match="is public"):
        chosen.push_to_hub("me/photos", private=True)
    assert hub.commits == 0
    make_hub(private=True)
    chosen.push_to_hub("me/photos", private=True)


def test_a_damaged_set_is_not_uploaded(chosen: DistilledSet, make_hub: MakeHub) -> None:
    hub = make_hub()
    (chosen.path / "README.md").write_text("changed")
    with pytest.raises(DamagedFile):
        chosen.push_to_hub("me/photos")
    assert hub.commits == 0


def test_a_hub_that_refuses_is_explained(chosen: DistilledSet, make_hub: MakeHub) -> None:
    make_hub()
    with pytest.raises(OutputError, match="cannot be uploaded to me/photos and more") as caught:
        chosen.push_to_hub("me/photos and more")
    assert "hf auth login" in caught.value.hint


@pytest.mark.parametrize("what", ["images", "set"])
def test_a_notebook_shows_counts_and_pictures(images: ImageData, chosen: DistilledSet, what: str) -> None:
    page = images._repr_html_() if what == "images" else chosen._repr_html_()
    assert "<b" not in page.replace("<br>", "") and "a&lt;b" in page
    assert 'src="data:image/png;base64,' in page
    if what == "images":
        assert "15 images of 3 classes, 16 px" in page and "10: 4; 9: 6; a&lt;b: 5" in page
    else:
        assert "2 image(s) of each of 3 classes, 16 px, method random_real" in page
        assert "It contains 6 real images." in page


def test_a_notebook_shows_ten_of_many_classes_small(image_folder: MakeFolder) -> None:
    images = load_images(image_folder({f"{label:02}": 2 for label in range(12)}, size=200))
    page = images._repr_html_()
    assert "The first 10 of 12 classes" in page
    assert len(page) < 10 * 2 * 96 * 96 * 3 * 4 / 3 * 1.1


def test_statistics_alone_show_no_pictures(digits_prior: d3hr.Prior, digits: ImageData, tmp_path: Path) -> None:
    drawn = d3hr.distill(digits, digits_prior, tmp_path / "statistics", store="statistics", steps=3, level=1)
    assert len(drawn) == 0
    page = drawn._repr_html_()
    assert "statistics alone of each of 10 classes" in page and "<img" not in page
    with pytest.raises(DistilledSetError, match="no images"):
        drawn.to_datasets()
