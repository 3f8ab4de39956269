"""Which autoencoder a fit takes by itself, on machines with and without network, and what a damaged cache says."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from accelerate import Accelerator

from d3hr import ImageData, Prior, fit_prior, load_images
from d3hr.errors import PriorError, SettingsError
from d3hr.prior import fit, given_autoencoder
from d3hr.prior.given_autoencoder import PRETRAINED, GivenAutoencoder, autoencoder_of
from d3hr.prior.presets import PRESETS
from d3hr.prior.settings import fit_settings
from d3hr.progress import SILENT
from tests.conftest import SMALL, MakeFolder, hub_cache


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny preset with small networks that are trained for two steps."""
    training = {
        name: getattr(SMALL, name).model_copy(update={"batch_size": 2, "steps": 2})
        for name in ("autoencoder_training", "transformer_training")
    }
    monkeypatch.setitem(
        PRESETS, "tiny", SMALL.model_copy(update={**training, "autoencoder": "AutoencoderDC", "autoencoder_widths": (8, 8)})
    )


@pytest.fixture
def any_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take an autoencoder however bad it is: those of these tests have random weights."""
    monkeypatch.setattr(given_autoencoder, "LEAST_DB", 0.0)


@pytest.fixture
def photos(image_folder: MakeFolder) -> ImageData:
    return load_images(image_folder({"ant": 2, "bee": 2}, size=64))


@pytest.fixture
def silent_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A Hub that takes connections and never says a word, and an empty cache."""
    with socket.socket() as hub:
        hub.bind(("127.0.0.1", 0))
        hub.listen()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        yield hub


class HubOfOne(BaseHTTPRequestHandler):
    """The Hub's answers about one repository, whose files lie in ``folder``."""

    folder: Path
    commit = "b" * 40

    def do_GET(self) -> None:
        """Answer; to HEAD, without the content."""
        path, about = self.path.partition("?")[0], f"/api/models/{PRETRAINED}"
        file = self.folder / path.rpartition("/")[2]
        if path == f"/{PRETRAINED}/resolve/{self.commit}/{file.name}":
            content, headers = file.read_bytes(), {"ETag": f'"{file.name}"', "X-Repo-Commit": self.commit}
        elif path.startswith(f"{about}/tree"):
            entries = [{"type": "file", "path": each.name, "size": each.stat().st_size, "oid": each.name} for each in self.folder.iterdir()]
            content, headers = json.dumps(entries).encode(), {}
        elif path.startswith(about):
            siblings = [{"rfilename": each.name} for each in self.folder.iterdir()]
            content, headers = json.dumps({"id": PRETRAINED, "sha": self.commit, "siblings": siblings}).encode(), {}
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Hub on this machine, and an empty cache; the folder is that of the repository's files."""
    folder = tmp_path / "repository"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (HubOfOne,), {"folder": folder}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    for place in ("constants", "file_download"):  # where older clients keep a copy
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"huggingface_hub.{place}.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def taesd(cache: Path) -> diffusers.AutoencoderTiny:
    """Lay a small autoencoder of random weights out in the Hub's cache, as the repository holds it."""
    torch.manual_seed(0)
    widths, blocks = (8,) * 4, (1,) * 4
    vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=widths, decoder_block_out_channels=widths, num_encoder_blocks=blocks, num_decoder_blocks=blocks
    )
    vae.save_pretrained(cache.parent / "taesd")
    hub_cache(cache.parent / "taesd", cache, PRETRAINED)
    return vae


def chosen(images: ImageData, out: Path, **options: Any) -> GivenAutoencoder:
    return autoencoder_of(fit_settings(**options), images, out, Accelerator(cpu=True), SILENT)


def of_fit(out: Path) -> tuple[str, str | None]:
    """Return the autoencoder of a finished fit, and why it was taken."""
    about = json.loads((out / "fit.json").read_text())
    return about["autoencoder"], about["autoencoder_reason"]


@pytest.mark.usefixtures("any_quality")
def test_a_copy_in_the_cache_is_used_without_network(photos: ImageData, offline: Path, tmp_path: Path) -> None:
    """Its weights stay, its latents get unit scale, the images are as large as it allows the preset, and diffusers opens the folder."""
    theirs = taesd(offline)
    prior = fit_prior(photos, tmp_path / "prior")
    assert (prior.image_size, prior.latent_shape) == (64, (4, 8, 8))
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in prior.vae.state_dict().items())
    pictures = photos.gather(range(4))[0]
    assert float(prior.encode(pictures).square().mean().sqrt()) == pytest.approx(1, rel=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(
            prior.decode(prior.encode(pictures)), theirs.decode(theirs.eval().encode(pictures).latents).sample.clamp(-1, 1)
        )
    name, reason = of_fit(tmp_path / "prior")
    assert name == PRETRAINED
    assert "dB on 4 of these images" in str(reason)
    assert isinstance(diffusers.DiTPipeline.from_pretrained(tmp_path / "prior").vae, diffusers.AutoencoderTiny)
    assert fit_prior(photos, tmp_path / "prior").fingerprint == prior.fingerprint


def test_offline_without_a_copy_one_is_trained(photos: ImageData, offline: Path, tmp_path: Path) -> None:
    prior = fit_prior(photos, tmp_path / "prior")
    assert (type(prior.vae).__name__, prior.image_size) == ("AutoencoderDC", 32)
    name, reason = of_fit(tmp_path / "prior")
    assert name == "own"
    assert "HF_HUB_OFFLINE is set" in str(reason)


@pytest.mark.usefixtures("any_quality")
def test_it_is_downloaded_once(photos: ImageData, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the repository's files those that are needed; afterwards the Hub may be out of reach."""
    taesd(tmp_path / "elsewhere" / "cache")
    for file in (tmp_path / "elsewhere" / "cache").rglob("snapshots/*/*"):
        file.rename(hub / file.name)
    for name in ("diffusion_pytorch_model.bin", "taesd_decoder.pth"):
        (hub / name).write_bytes(b"not needed")
    assert chosen(photos, tmp_path / "prior").name == PRETRAINED
    names = {file.name for file in (tmp_path / "cache").rglob("snapshots/*/*")}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert chosen(photos, tmp_path / "prior").name == PRETRAINED


def test_a_hub_out_of_reach_is_not_waited_for(
    photos: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_hub: socket.socket
) -> None:
    """No answer within the time limit, or a port where nobody listens."""
    monkeypatch.setattr(given_autoencoder, "ANSWER_SECONDS", 0.2)
    silent = chosen(photos, tmp_path / "prior")
    assert (silent.name, silent.vae) == ("own", None)
    assert silent.reason
    assert "the Hub is out of reach" in silent.reason
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert chosen(photos, tmp_path / "prior").name == "own"


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"autoencoder": "own"}, None), ({"autoencoder_steps": 3}, "steps"), ({"image_size": 32}, "small"), ({"image_size": 60}, "multiples")],
)
def test_where_no_pretrained_one_would_do_nobody_is_asked(
    photos: ImageData, tmp_path: Path, silent_hub: socket.socket, options: dict[str, Any], reason: str | None
) -> None:
    given = chosen(photos, tmp_path / "prior", **options)
    assert given.name == "own"
    assert given.reason is None if reason is None else reason in str(given.reason)
    silent_hub.setblocking(False)
    with pytest.raises(BlockingIOError):
        silent_hub.accept()


def test_one_that_spoils_the_images_is_not_taken(photos: ImageData, offline: Path, tmp_path: Path) -> None:
    taesd(offline)
    given = chosen(photos, tmp_path / "prior")
    assert given.name == "own"
    assert f"{PRETRAINED} has only" in str(given.reason)


@pytest.mark.usefixtures("any_quality")
def test_one_that_takes_most_of_the_time_is_not_taken(photos: ImageData, offline: Path, tmp_path: Path) -> None:
    """Encoding four images takes less than a quarter of an hour, and more than a quarter of a microsecond."""
    taesd(offline)
    assert chosen(photos, tmp_path / "prior", max_minutes=60).name == PRETRAINED
    given = chosen(photos, tmp_path / "prior", max_minutes=1e-8)
    assert given.name == "own"
    assert "to encode the images" in str(given.reason)


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: shorten(folder / "config.json"), "config.json"),
        (lambda folder: shorten(folder / "diffusion_pytorch_model.safetensors"), "diffusion_pytorch_model"),
        (lambda folder: (folder / "config.json").write_text('{"_class_name": "VQModel"}'), "VQModel"),
        (lambda folder: diffusers.AutoencoderKL().save_pretrained(folder), "AutoencoderKL, not AutoencoderTiny"),
    ],
)
def test_a_damaged_cache_says_what_to_delete(
    photos: ImageData, offline: Path, tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    taesd(offline)
    repository = offline / "models--madebyollin--taesd"
    damage(repository / "snapshots" / ("a" * 40))
    with pytest.raises(PriorError, match="cannot be used") as raised:
        chosen(photos, tmp_path / "prior")
    assert words in raised.value.found
    assert str(repository) in raised.value.hint


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("any_quality")
def test_a_stopped_fit_keeps_its_autoencoder(photos: ImageData, offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was begun without a copy goes on without one, and with the reason it had; one that was begun with a copy needs it."""
    with monkeypatch.context() as patched:
        patched.setattr(fit, "train_transformer", stop)
        with pytest.raises(KeyboardInterrupt):
            fit_prior(photos, tmp_path / "without")
        taesd(offline)
        with pytest.raises(KeyboardInterrupt):
            fit_prior(photos, tmp_path / "with")
    fit_prior(photos, tmp_path / "without")
    name, reason = of_fit(tmp_path / "without")
    assert name == "own"
    assert "HF_HUB_OFFLINE is set" in str(reason)
    cached, elsewhere = offline / "models--madebyollin--taesd", tmp_path / "elsewhere"
    cached.rename(elsewhere)
    with pytest.raises(PriorError, match="which cannot be had now"):
        fit_prior(photos, tmp_path / "with")
    elsewhere.rename(cached)
    assert type(fit_prior(photos, tmp_path / "with").vae).__name__ == "AutoencoderTiny"


def test_a_pretrained_prior_brings_its_own(photos: ImageData, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="autoencoder own trains one"):
        fit_prior(photos, tmp_path / "prior", init=tmp_path, autoencoder="own")


def test_the_preset_grows_behind_a_given_autoencoder(photos: ImageData, offline: Path, tmp_path: Path) -> None:
    """Named by its folder, it is used whatever its quality; eight latents a side are 64 pixels, not 72."""
    taesd(offline)
    folder = offline / "models--madebyollin--taesd" / "snapshots" / ("a" * 40)
    prior = fit_prior(photos, tmp_path / "prior", autoencoder=folder)
    assert prior.image_size == Prior.from_pretrained(tmp_path / "prior").image_size == 64
    assert of_fit(tmp_path / "prior") == (str(folder), None)
    with pytest.raises(SettingsError, match="8 to 64 pixels"):
        fit_prior(photos, tmp_path / "larger", autoencoder=folder, image_size=72)
