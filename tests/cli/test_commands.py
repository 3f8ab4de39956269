import errno
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from d3hr import Prior
from d3hr.__main__ import main
from d3hr.cli.parser import COMMANDS
from d3hr.evaluation.evaluate import TRAINING_SEEDS, protocol_of_device
from tests.conftest import MakeFolder, tree, untrained_prior

CLASSES = {"ant": 4, "bee": 4, "cat": 4}
BRIEF = str(Path(__file__).parent.parent / "recipes" / "brief.yaml")
FAST = ["--steps", "5", "--level", "2", "--num-candidates", "20"]


@pytest.fixture
def place(image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with ``images`` and ``prior``."""
    image_folder(CLASSES)
    untrained_prior(tuple(CLASSES)).save_pretrained(tmp_path / "prior")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_way_from_folder_to_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """distill, expand and evaluate, each with settings saved beside its result and JSON on standard output."""
    assert main(["distill", "images", "--prior", "prior", "--out", "set", "--ipc", "2", "--json", *FAST]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["ipc"] == 2
    assert "12 images of 3 classes" in output.err
    assert yaml.safe_load((place / "set" / "settings.yaml").read_text())["ipc"] == 2
    assert main(["expand", "set", "--out", "more", "--ipc", "3"]) == 0
    assert "Next: d3hr evaluate more --test FOLDER_OF_TEST_IMAGES" in capsys.readouterr().out
    assert len(list((place / "more" / "train" / "bee").iterdir())) == 3
    assert main(["evaluate", "set", "--test", "images", "--protocol", BRIEF, "--seeds", "[0]", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [row["method"] for row in rows] == ["d3hr", "random_real", "prior_only"]
    assert (place / "set-evaluation" / "results.json").exists()


def test_saved_settings_repeat_the_result(place: Path) -> None:
    """--config with the settings.yaml of a set, and another --out, gives the same images."""
    assert main(["distill", "images", "--prior", "prior", "--out", "set", "--ipc", "2", "--seed", "5", *FAST]) == 0
    assert main(["distill", "--config", "set/settings.yaml", "--out", "again"]) == 0
    assert tree(place / "again" / "train") == tree(place / "set" / "train")


@pytest.mark.slow
def test_plan_says_what_it_costs_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """12 images, two levels, guidance 4: 12 * 2 * 2 calls of the transformer. Without flags of its own, evaluation is planned as
    'd3hr evaluate' does it on this device: the protocol for CPUs, and three students for each of three rows."""
    before = tree(place)
    planning = ["plan", "images", "--prior", "prior", "--ipc", "2", "--test-images", "8", *FAST]
    protocol = protocol_of_device()
    assert main([*planning, "--json"]) == 0
    stages = {stage["name"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["invert"]["calls"] == 48
    assert main([*planning, "--devices", "3", "--protocol", protocol, "--evaluation-runs", str(3 * len(TRAINING_SEEDS)), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["devices"] == 3
    assert {stage["name"]: stage["flops"] for stage in again["stages"]}["evaluate"] == stages["evaluate"]["flops"]
    assert tree(place) == before


def test_plan_needs_no_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts alone; two levels, guidance 4: 2 * 2 calls an image. A file of settings may hold the rates of machines."""
    (place / "cluster.yaml").write_text("device_flops: 4.0e+14\nstorage_rate: 2.0e+9\n")
    assert main(["plan", "--images", "1e9", "--classes", "20000", "--prior", "prior", *FAST, "--config", "cluster.yaml", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["images"], values["distilled"]) == (10**9, 200_000)
    assert (values["rates"]["device_flops"], values["machines"]["storage_rate"], values["machines"]["network_rate"]) == (4e14, 2e9, 1e9)
    assert values["limits"][0]["broken"]


def test_fit_writes_a_prior(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "images", "--out", "fitted", "--steps", "2", "--autoencoder-steps", "2"]) == 0
    assert "d3hr distill images --prior fitted" in capsys.readouterr().out
    assert Prior.from_pretrained(place / "fitted").class_names == tuple(CLASSES)


@pytest.mark.slow
def test_fit_says_how_good_the_prior_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One step makes no prior of noise: it is called weak after the fit and where it is used, and there is a picture of it."""
    assert main(["fit", "images", "--out", "weak", "--steps", "1", "--autoencoder-steps", "1", "--batch-size", "4"]) == 0
    said = capsys.readouterr().out
    assert "[failure] weak prior: " in said and "--candidates real" in said and "weak/samples.png" in said
    assert json.loads((place / "weak" / "verdict.json").read_text())["evidence"].startswith("on the training images: round trip of 12 ")
    with Image.open(place / "weak" / "samples.png") as sheet:
        assert sheet.width > sheet.height > 100
    assert main(["distill", "images", "--prior", "weak", "--out", "set", "--ipc", "2", *FAST]) == 0
    assert "warning: weak prior (on the training images" in capsys.readouterr().err


@pytest.mark.slow
def test_fit_judges_a_prior_by_held_out_images(place: Path, image_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the source has a split for it: of its two images a class, six come back from the round trip; a test split is left alone, and so
    is a validation split of other classes."""
    for split, classes in (("train", CLASSES), ("val", dict.fromkeys(CLASSES, 2)), ("test", CLASSES)):
        image_folder(classes, name=f"photos/{split}")
    fit = ["--steps", "1", "--autoencoder-steps", "1", "--batch-size", "4"]
    assert main(["fit", "photos", "--out", "fitted", *fit]) == 0
    assert "on split val: round trip of 6 real images" in capsys.readouterr().out
    shutil.rmtree(place / "photos" / "val" / "ant")
    assert main(["fit", "photos", "--split", "train", "--out", "other", *fit]) == 0
    assert "on the training images: round trip of 12 real images" in capsys.readouterr().out


def test_inspect_counts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "images", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["classes"] == CLASSES
    assert values["labels"] == {"ant": 0, "bee": 1, "cat": 2}
    assert values["splits"] == values["similar_names"] == []
    assert main(["inspect", "images"]) == 0
    assert re.search(r"4 +1 +bee", capsys.readouterr().out)


def test_inspect_knows_the_classes_of_well_known_priors_offline(
    image_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prompts for a text-to-image prior, ImageNet's rows for DiT and SiT, nothing for a model of pixels; the Hub is not asked."""
    monkeypatch.setattr("d3hr.prior.repository.Repository._snapshot", lambda *_: pytest.fail("the Hub was asked"))
    images = str(image_folder({"tench": 2, "goldfish": 2}))
    shown = {}
    for prior in ("stabilityai/stable-diffusion-xl-base-1.0", "SiT-XL-2-256", "facebook/DiT-XL-2-256", "google/ddpm-cifar10-32"):
        assert main(["inspect", images, "--prior", prior, "--json"]) == 0
        shown[prior] = [match["prior_class"] for match in json.loads(capsys.readouterr().out)["conditioning"]]
    text, *of_labels, pixels = shown.values()
    assert text == ["a photo of a goldfish", "a photo of a tench"]
    assert of_labels == [["goldfish, Carassius auratus", "tench, Tinca tinca"]] * 2
    assert pixels == ["", ""]


def test_inspect_shows_what_a_prior_makes_of_the_classes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before any work, and without the prior's weights: class, conditioning id, the prior's name, and how they were matched."""
    untrained_prior(("cat, true cat", "dog", "bee", "Ant")).save_pretrained(place / "other")
    for weights in (place / "other").rglob("*.safetensors"):
        weights.unlink()
    assert main(["inspect", "images", "--prior", "other"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["4", "ant", "3", "Ant", "label", "or", "synonym"],
        ["4", "bee", "2", "bee", "exact", "name"],
        ["4", "cat", "0", "cat,", "true", "cat", "label", "or", "synonym"],
    ]
    (place / "map.yaml").write_text("bee: dog\n")
    assert main(["inspect", "images", "--prior", "other", "--class-map", "map.yaml", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["conditioning"]
    assert [(row["class_name"], row["conditioning_id"], row["how"]) for row in rows][1] == ("bee", 1, "class map")


@pytest.mark.slow
def test_a_prior_of_other_names_from_map_to_evaluation(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A class map, half precision and statistics alone; expand and evaluate find precision and classes in the manifest."""
    prior = untrained_prior(("Formica", "Apis", "Felis"))
    prior.licence = "cc-by-nc-4.0"
    prior.save_pretrained(place / "latin")
    (place / "map.yaml").write_text("ant: Formica\nbee: 1\ncat: felis\n")
    distil = ["distill", "images", "--prior", "latin", "--out", "kept", "--class-map", "map.yaml", *FAST]
    assert main([*distil, "--store", "statistics", "--statistics-dtype", "float16", "--precision", "bf16"]) == 0
    output = capsys.readouterr()
    assert "Next: d3hr expand kept" in output.out
    assert output.err.count("cc-by-nc-4.0") == 1
    assert main(["expand", "kept", "--ipc", "2", "--out", "set"]) == 0
    manifest = json.loads((place / "set" / "manifest.json").read_text())
    assert [(entry["name"], entry["prior_class"]) for entry in manifest["classes"]] == [
        ("ant", "Formica"),
        ("bee", "Apis"),
        ("cat", "Felis"),
    ]
    assert (manifest["prior"]["precision"], manifest["prior"]["licence"]) == ("bf16", "cc-by-nc-4.0")
    assert manifest["storage"]["images"] > 0 < manifest["storage"]["statistics"]
    capsys.readouterr()
    assert main(["evaluate", "set", "--test", "images", "--protocol", BRIEF, "--seeds", "[0]", "--json"]) == 0
    assert [row["method"] for row in json.loads(capsys.readouterr().out)["results"]] == ["d3hr", "random_real", "prior_only"]
    assert main(["evaluate", "kept", "--test", "images", "--protocol", BRIEF]) == 2
    assert "d3hr expand kept" in capsys.readouterr().err


def test_the_level_is_chosen_and_said(place: Path, image_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    image_folder(dict.fromkeys(CLASSES, 9), name="more")
    arguments = ["distill", "more", "--prior", "prior", "--out", "set", "--ipc", "2", "--steps", "5", "--num-candidates", "20"]
    assert main([*arguments, "--level", "auto"]) == 0
    assert "calls per image  normal dimensions" in capsys.readouterr().err
    settings = json.loads((place / "set" / "manifest.json").read_text())["settings"]
    assert settings["statistics_level"] == settings["denoising_level"] == json.loads((place / "set" / "level.json").read_text())["level"]


def test_a_pretrained_prior_goes_on_with_other_classes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untrained_prior(("bee", "wasp")).save_pretrained(place / "init")
    assert (
        main(
            [
                "fit",
                "images",
                "--init",
                "init",
                "--adapt",
                "lora",
                "--lora-rank",
                "2",
                "--steps",
                "2",
                "--batch-size",
                "4",
                "--out",
                "tuned",
            ]
        )
        == 0
    )
    assert Prior.from_pretrained(place / "tuned").class_names == tuple(CLASSES)
    assert main(["distill", "images", "--prior", "tuned", "--out", "set", "--ipc", "2", *FAST]) == 0


def test_print_config_shows_every_setting(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["distill", "images", "--prior", "prior", "--out", "set", "--print-config"])
    assert caught.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["ipc"] == 10


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for flag in ("--config", "--print-config", "--json", "--debug"):
        assert flag in shown
    assert "Optional[" not in shown
    assert "_" not in "".join(re.findall(r"--[\w-]+", shown.partition("most used:")[2]))


DISTILL = ["distill", "images", "--prior", "prior", "--out", "set"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "missing"], "There is no folder missing"),
        (["fit", "./none", "--out", "set"], "There is no folder ./none"),
        ([*DISTILL, "--ipc", "0"], "--ipc"),
        ([*DISTILL, "--preset", "best"], "paper, released, fast, mixture, gentle"),
        ([*DISTILL, "--level", "50"], "not on a grid"),
        ([*DISTILL, "--level", "3", "--statistics-level", "3"], "--level sets both"),
        (["distill", "images", "--prior", "nowhere", "--out", "set"], "no prior at nowhere"),
        (["distill", "images", "--prior", "images", "--out", "set"], "model_index.json"),
        (["distill", "images", "--prior", "prior", "--out", "prior", *FAST], "already exists"),
        (["distill", "images", "--prior", "other", "--out", "set", *FAST], "2 class(es) of images are not classes of the prior: ant, cat"),
        ([*DISTILL, "--class-map", "none.yaml"], "The class map none.yaml cannot be read"),
        ([*DISTILL, "--autoencoder", "images"], "images cannot be loaded"),
        (["inspect", "images", "--class-map", "map.yaml"], "--class-map is for --prior"),
        (["fit", "images", "--out", "set", "--adapt", "lora"], "need --init"),
        (["fit", "images", "--out", "set", "--init", "prior", "--image-size", "16"], "does not take this image size"),
        (["fit", "images", "--out", "set", "--init", "nowhere"], "no prior at nowhere"),
        (["expand", "images", "--out", "set", "--ipc", "1"], "not a distilled set"),
        (["evaluate", "nowhere", "--test", "images"], "do: "),
        (["evaluate", "images", "--test", "images", "--protocol", "best"], "dc, hard, paper-cifar"),
        (["evaluate", "images", "--test", "images", "--protocol", "stored"], "needs a teacher"),
        (["evaluate", "images", "--test", "images", "--protocol", "stored", "--teacher", "images"], "images is not a teacher"),
        (["train-teacher", "images", "--test", "images", "--out", "set", "--protocol", "stored"], "learns from hard labels"),
        (["compare", "images", "--test", "images", "--out", "set"], "Method d3hr needs a prior"),
        (["compare", "images", "--test", "images", "--out", "set", "--methods", "[magic]"], "unknown method"),
        (["plan", "images", "--prior", "nowhere"], "no prior at nowhere"),
        (["plan", "images", "--prior", "prior", "--devices", "0"], "--devices"),
        (["plan"], "A plan is of DATA, or of --images and --classes"),
        (["plan", "--images", "1e9"], "one of the two numbers"),
        (["plan", "images", "--images", "1e9", "--classes", "5"], "both"),
        (["plan", "--images", "1e20", "--classes", "5"], "--images"),
        (["plan", "images", "--prior", "prior", "--node-memory", "2e12"], "data that are not at hand"),
        (["plan", "images", "--prior", "other", *FAST], "not classes of the prior: ant, cat"),
        (["fit", "images", "--out", "set", "--preset", "huge"], "tiny, compact, small, base"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_message(place: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, what was wrong and what to do on standard error, nothing on standard output, nothing written."""
    untrained_prior(("bee", "wasp")).save_pretrained(place / "other")
    before = tree(place)
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert "do: " in output.err
    assert "Traceback" not in output.err
    assert output.out == ""
    assert tree(place) == before


@pytest.mark.parametrize("arguments", [["distill"], ["frobnicate"], [], ["distill", "images", "--ipc", "many"]])
def test_a_command_that_cannot_be_parsed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_unreadable_files_are_listed_or_skipped_and_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "images" / "ant" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (1, 1)).save(place / "images" / "bee" / "pixel.png")
    assert main([*DISTILL, *FAST]) == 2
    message = capsys.readouterr().err
    assert "ant/broken.png" in message
    assert "bee/pixel.png: 1 x 1 pixels" in message
    assert main([*DISTILL, *FAST, "--ipc", "2", "--on-bad-image", "skip"]) == 0
    assert len(json.loads((place / "set" / "manifest.json").read_text())["data"]["skipped"]) == 2


@pytest.mark.slow
def test_what_a_manifest_no_longer_finds_is_asked_for(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The images have moved: evaluate names the flag, and with it goes on; too few real images leave that row out."""
    assert main([*DISTILL, "--ipc", "5", *FAST]) == 0
    (place / "images").rename(place / "moved")
    evaluate = ["evaluate", "set", "--test", "moved", "--protocol", BRIEF, "--seeds", "[0]", "--json"]
    assert main(evaluate) == 2
    assert "tell where it is with --data" in capsys.readouterr().err
    assert main([*evaluate, "--data", "moved"]) == 0
    output = capsys.readouterr()
    assert "no row of random real images" in output.err
    assert [row["method"] for row in json.loads(output.out)["results"]] == ["d3hr", "prior_only"]


@pytest.mark.slow
def test_a_set_is_used_from_another_folder(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The manifest names images and prior by the paths that were given; they are found next to the set, too. Changed images are said."""
    assert main(["distill", "images", "--prior", "prior", "--out", "set", "--ipc", "2", *FAST]) == 0
    monkeypatch.chdir("/")
    arguments = ["evaluate", str(place / "set"), "--test", str(place / "images"), "--protocol", str(place / BRIEF), "--seeds", "[0]"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "random_real" in output.out and "prior_only" in output.out
    assert "is not what the set was made from" not in output.err
    shutil.copyfile(place / "images" / "bee" / "0.png", place / "images" / "bee" / "another.png")
    assert main([*arguments, "--out", str(place / "second")]) == 0
    assert "is not what the set was made from" in capsys.readouterr().err


@pytest.mark.slow
def test_a_finished_command_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["distill", "images", "--prior", "prior", "--out", "set", "--ipc", "2", *FAST]
    assert main(command) == 0
    assert "finished already" not in capsys.readouterr().err
    assert main(command) == 0
    assert "set is finished already; nothing is computed again" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["distill", "images", "--prior", "prior", "--out", "images", "--ipc", "2"],
        ["distill", "images", "--prior", "prior", "--out", ".", "--ipc", "2"],
        ["distill", "images", "--prior", "prior", "--out", "set", "--temperature", "0", "--ipc", "2"],
        ["fit", "images", "--out", "images"],
        ["fit", "images", "--out", "new", "--image-size", "2000"],
        ["train-teacher", "images", "--test", "images", "--out", "images"],
        ["baseline", "random_real", "images", "--out", "images"],
        ["compare", "images", "--test", "images", "--out", "images"],
    ],
)
def test_what_needs_no_image_to_be_refused_is_refused_first(place: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert "error: " in errors and "Traceback" not in errors
    assert "12 images" not in errors and "checking images" not in errors


def test_a_missing_flag_is_named_as_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit"])
    assert "required: DATA, --out" in capsys.readouterr().err


def test_no_setting_imports_code(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """jsonargparse would import what a class_path names, on the command line and in a --config file."""
    (place / "marker_of_an_import.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(place)
    (place / "a.yaml").write_text("settings: {a: {class_path: marker_of_an_import.A}}\n")
    base = ["baseline", "random_real", "images", "--out", "set"]
    for arguments in (["--config", "a.yaml"], ["--settings", "{a: {class_path: marker_of_an_import.A}}"]):
        with pytest.raises(SystemExit) as caught:
            main([*base, *arguments])
        assert caught.value.code == 2
        assert "error" in capsys.readouterr().err
    assert "marker_of_an_import" not in sys.modules
    assert not (place / "set").exists()


@pytest.mark.parametrize("text", ["a: &a [x]\nb: *a", "\x80", "[" * 3000])
def test_a_hostile_config_is_one_message(place: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "a.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SystemExit) as caught:
        main(["inspect", "images", "--config", "a.yaml"])
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err


def test_what_a_terminal_cannot_show_is_escaped(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "images" / "ant").rename(place / "images" / "\x1b[2Jant")
    assert main(["inspect", "images"]) == 0
    assert "\\x1b[2Jant" in capsys.readouterr().out
    assert main(["inspect", "\x1b[2J"]) == 2
    with pytest.raises(SystemExit):
        main(["inspect", "images", "\x1b[2J"])
    assert "\x1b" not in capsys.readouterr().err
    assert main(["inspect", "a\0b"]) == 2
    assert "NUL" in capsys.readouterr().err


def test_more_memory_than_there_is_is_one_message(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """10^12 images of 64 latent values in 8 bytes are 512 TB."""
    assert main(["distill", "images", "--prior", "prior", "--out", "set", "--ipc", str(10**12), "--strategy", "random", *FAST]) == 2
    assert "not enough memory" in capsys.readouterr().err
    assert not (place / "set").exists()


def test_debug_shows_the_traceback(place: Path) -> None:
    with pytest.raises(Exception, match="There is no folder"):
        main(["inspect", "missing", "--debug"])


@pytest.mark.slow
def test_a_full_disk_is_said_and_nothing_is_lost(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The disk fills up at the seventh file; after space is freed the same command ends with the bytes of an undisturbed run."""
    arguments = ["distill", "images", "--prior", "prior", "--ipc", "2", *FAST]
    assert main([*arguments, "--out", "whole"]) == 0
    written = 0
    write = Path.write_bytes

    def until_full(path: Path, content: bytes) -> int:
        nonlocal written
        written += 1
        if written == 7:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", until_full)
        assert main([*arguments, "--out", "set"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert not (place / "set").exists()
    assert main([*arguments, "--out", "set"]) == 0
    for part in ("train", "statistics.safetensors"):
        whole, again = place / "whole" / part, place / "set" / part
        assert (tree(whole) == tree(again)) if whole.is_dir() else (whole.read_bytes() == again.read_bytes())
