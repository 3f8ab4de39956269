"""Commands and files as nobody should give them: exit code 0 or 2 and a message, no traceback, nothing written but the output."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from d3hr import DistilledSet, distill, load_images
from d3hr import __main__ as command_line
from d3hr.__main__ import main
from d3hr.cli.parser import COMMANDS, build_parser
from d3hr.prior.model import Prior
from tests.conftest import untrained_prior
from tests.faults.hostile import NAMES, cases, changed, damaged, encoded, noise

CLASSES = ("ant", "bee")
FAST = ["--steps", "4", "--level", "1", "--num_candidates", "4"]
BASES = {
    "demo": [["--out", "whole"]],
    "inspect": [["images"], ["whole"], ["nowhere"]],
    "fit": [["nowhere", "--out", "out"], ["images", "--out", "whole", "--steps", "1", "--autoencoder_steps", "1"]],
    "plan": [["nowhere", "--prior", "prior"], ["images"], ["recipe.yaml"]],
    "distill": [["images", "--prior", "prior", "--out", "out", "--ipc", "1", *FAST], ["nowhere", "--prior", "prior", "--out", "out"]],
    "expand": [["whole", "--out", "out", "--ipc", "1"], ["images", "--out", "out", "--ipc", "1"]],
    "baseline": [["random_real", "images", "--out", "out", "--ipc", "1"], ["herding", "nowhere", "--out", "out"]],
    "train-teacher": [["nowhere", "--test", "images", "--out", "out"]],
    "import-teacher": [["nowhere", "--student", "resnet20", "--class_names", "[a, b]", "--out", "out"]],
    "evaluate": [["nowhere", "--test", "images"], ["whole", "--test", "nowhere"]],
    "compare": [["nowhere", "--test", "images", "--out", "out"]],
    "diagnose": [["nowhere"], ["whole", "--data", "nowhere"]],
    "recipe": [["nowhere", "--out", "out", "--ipc", "1"]],
    "update": [["whole", "images", "--prior", "prior", "--out", "out"], ["whole", "nowhere"], ["images", "images", "--out", "out"]],
    "report": [["whole", "--out", "out/page.html"], ["images", "--out", "out/page.html"], ["nowhere"]],
}
"""Arguments of each command that take milliseconds, or that end before any work."""
TEXTS = st.one_of(
    st.sampled_from(
        [
            "-1",
            "0",
            "1",
            "2",
            "3.5",
            "nan",
            "-inf",
            "1e9",
            "999999999999",
            "9" * 5000,
            "",
            " ",
            "x",
            "no",
            "null",
            "auto",
            "images",
            "whole",
        ]
    ),
    st.sampled_from(
        ["[]", "{}", "[0, 0]", "[1, 2, 3]", "{a: 1}", "{space: latent}", "[", "{", "'", "*a", "&a [*a]", "- -", "a: b: c", "[" * 2000]
    ),
    st.sampled_from(
        ["!!python/object/apply:os.system ['touch pwned']", "{a: {class_path: this}}", "a\0b", "\x1b[2J", "é", "\udcff", "x" * 5000]
    ),
    st.sampled_from(
        ["search", "exact", "fp32", "bf16", "images", "statistics", "cpu", "cuda:99", "latent", "hard", "convnet3", "timm:none"]
    ),
    NAMES,
).filter(lambda text: text.count("/") != 1)  # a Hub id would be asked for
FLAGS = [
    "--ipc", "--seed", "--split", "--image_size", "--preset", "--json", "--level", "--weights", "--settings", "--batch_size",
    "--device", "--on_bad_image", "--class-map", "--prior", "--teacher", "--config", "--precision", "--student", "--protocol",
    "--seeds", "--methods", "--matrix", "--evaluation", "--diagnosis", "--space", "--levels", "--data", "--test", "--out",
    "--nonsense", "-x", "--", "--ipc=", "--help", "--print_config", "--solver", "--strategy", "--exact_std",
    "--statistics_level", "--store", "--latent_cache", "--lora_rank", "--init", "--inversion_guidance", "--denoising-guidance",
    "--image_column", "--data_config", "--autoencoder", "--devices", "--shared",
]  # fmt: skip


PARSERS = cache(build_parser)
"""Made once: it takes longer than most cases."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with ``images``, ``prior``, a set in ``whole`` and a recipe; a page's worth of results in ``kept``."""
    root = tmp_path_factory.mktemp("work")
    for name in CLASSES:
        (root / "images" / name).mkdir(parents=True)
        for index in range(2):
            (root / "images" / name / f"{index}.png").write_bytes(encoded(noise(8, seed=index + 100 * CLASSES.index(name))))
    untrained_prior(CLASSES).save_pretrained(root / "prior")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(command_line, "build_parser", lambda commands: PARSERS(tuple(commands)))
        distill(load_images("images"), Prior.from_pretrained("prior"), "whole", ipc=1, steps=4, level=1, num_candidates=4)
        shutil.copyfile(Path(__file__).parent.parent / "recipes" / "brief.yaml", root / "recipe.yaml")
        yield root


def tree() -> dict[str, int]:
    """Every path of the working folder with the time it was changed at."""
    return {os.fsdecode(os.fsencode(path)): path.lstat().st_mtime_ns for path in Path().rglob("*") if not path.is_dir()}


def run(arguments: list[str]) -> int:
    """The property; return the exit code."""
    before = tree()
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
    if "--print_config" in arguments:  # of which jsonargparse remembers something
        PARSERS.cache_clear()
    said = errors.getvalue()
    assert code in (0, 2), (code, said)
    assert "Traceback" not in said
    assert code == 0 or "error" in said, said
    assert "\x1b[2J" not in said + output.getvalue()
    if Path("out/manifest.json").exists():
        DistilledSet.load("out")
    assert code == 0 or not Path("out").exists() or not any(Path("out").rglob("*.tmp"))
    for made in ("out", "out.partial", "out-shared", "out-shared.partial"):
        shutil.rmtree(made, ignore_errors=True)
    assert tree() == before
    return code


@pytest.mark.parametrize("name", ["distill", "expand", "update", "baseline", "inspect", "report"])
def test_the_bases_are_right(place: Path, name: str) -> None:
    """So that what follows tells something."""
    assert run([name, *BASES[name][0]]) == 0


@cases(350)
@given(st.data(), st.sampled_from(sorted(COMMANDS)))
def test_arguments(place: Path, data: st.DataObject, name: str) -> None:
    arguments = list(data.draw(st.sampled_from(BASES[name])))
    for _ in range(data.draw(st.integers(0, 3))):
        if data.draw(st.integers(0, 4)) == 0 and len(arguments) > 1:
            del arguments[data.draw(st.integers(0, len(arguments) - 1))]
        else:
            flag, text = data.draw(st.sampled_from(FLAGS)), data.draw(TEXTS)
            if flag == "--out":
                text = data.draw(st.sampled_from(["whole", "images", "recipe.yaml", "out", "recipe.yaml/x/y", ""]))
            at = data.draw(st.integers(0, len(arguments)))
            arguments[at:at] = [flag, text] if data.draw(st.integers(0, 5)) else [flag]
    if name in ("fit", "demo", "evaluate", "compare", "train-teacher", "diagnose", "plan", "recipe"):
        arguments += ["--seed", "none"] if data.draw(st.booleans()) and name != "evaluate" else []
        arguments += ["--nonsense"] if set(arguments) >= {"images", "out"} or name in ("demo", "compare") else []
    run([name, *arguments])


@cases(40)
@given(st.lists(TEXTS, max_size=4))
def test_anything(place: Path, arguments: list[str]) -> None:
    run(arguments)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
HOSTILE = [
    BOMB, "[" * 3000, "{a: " * 900, "!!python/object/apply:os.system ['touch pwned']", "!!timestamp 2001-99-99", "!!int ''", "? [a]\n: b",
    "\x00", "\ufeffa: b", "a: b\n---\na: c", "- a", "", "a: 1e400", "name: ../../out", "!!binary '%'", "a: " + "9" * 5000, "<<: [1]",
    "x" * 2_000_000,     "settings: {a: {class_path: this}}", "class_path: this",
]  # fmt: skip
KINDS = {
    "config": lambda file: ["inspect", "nowhere", "--config", file],
    "config of distill": lambda file: ["distill", "--config", file, "--prior", "prior", "--out", "out", "--data", "nowhere"],
    "class map": lambda file: ["distill", "nowhere", "--prior", "prior", "--out", "out", "--class-map", file],
    "protocol": lambda file: ["evaluate", "nowhere", "--test", "images", "--protocol", file],
    "matrix": lambda file: ["compare", "nowhere", "--test", "images", "--out", "out", "--matrix", file],
    "recipe": lambda file: ["recipe", file, "--out", "out", "--ipc", "1", "--data", "nowhere", "--prior", "nowhere"],
}
WHOLE = {
    "config": {"data": "images", "split": None, "on_bad_image": "error"},
    "config of distill": {"data": "images", "ipc": 1, "preset": "paper", "weights": [1, 1, 0.5], "seed": 0, "level": 2},
    "class map": {"ant": "bee", "bee": "ant"},
    "protocol": {"base": "hard", "batch_size": 3, "by_ipc": {10: {"batch_size": 4}}, "crop_scale": [0.5, 1], "labels": "hard", "steps": 1},
    "matrix": {
        "methods": ["random_real", {"method": "herding", "name": "h", "settings": {"space": "pixel"}}],
        "ipc": [1],
        "protocols": ["hard"],
    },
}


@cases(260)
@given(st.data(), st.sampled_from(sorted(KINDS)))
def test_files_of_settings(place: Path, data: st.DataObject, kind: str) -> None:
    whole = WHOLE.get(kind) or yaml.safe_load((place / "recipe.yaml").read_text())
    text = yaml.safe_dump(whole).encode()
    how = data.draw(st.sampled_from(["hostile", "changed", "changed", "damaged"]))
    if how == "hostile":
        content = data.draw(st.sampled_from(HOSTILE)).encode()
    elif how == "changed":
        content = yaml.dump(data.draw(changed(whole))).encode(errors="surrogatepass")
    else:
        content = data.draw(damaged(text))
    Path("given.yaml").write_bytes(content)
    run(KINDS[kind]("given.yaml"))
    assert not Path("pwned").exists()


ROW = {
    "method": "d3hr", "name": "d3hr", "ipc": 1, "student": "convnet3", "image_size": None, "protocol": "hard",
    "labels": "hard", "protocol_settings": {"steps": 10}, "accuracy_mean": 0.5, "accuracy_std": 0.1, "seeds": 2,
    "best_epoch_mean": 0.6, "top5_mean": None,
    "distillation_seeds": [0], "training_seeds": [0, 1], "per_class": {"ant": 0.4, "bee": 0.6}, "class_names": ["ant", "bee"],
    "confusion": [[1, 2], [3, 4]], "hlr": 1.0, "ior": 0.1, "lrs": 0.2, "teacher": None,
}  # fmt: skip
RESULTS = [ROW, {**ROW, "method": "random_real", "name": "random"}]
DIAGNOSIS = {
    "set": {"path": "whole", "method": "d3hr", "ipc": 1}, "data": {"source": "images", "fingerprint": "ab"}, "space": "pixels",
    "normality": {"sample": "few", "levels": [{"level": 1, "timestep": 20, "shapiro": 0.5}, {"level": 2, "shapiro": 0.9}],
    "classes": {"ant": [0.1, 0.2]}},
    "distances": {"mmd": {"distilled": 0.1, "reference_mean": 0.2, "reference_std": 0.3}},
    "coverage": {"precision": 1, "recall": 0.5, "density": 1, "coverage": 1, "reference": {"precision": 1}},
    "diversity": {"distilled": 1, "real": 2}, "copying": {"ratio_median": 1, "share_copied": 0, "threshold": 0.5},
    "round_trip": {"psnr_db": 20, "autoencoder_psnr_db": 21, "images": 4}, "per_class": {"ant": {"mmd": 1}},
    "embedding": {"method": "pca", "points": [{"x": 0.5, "y": 1, "class": "ant", "kind": "real", "index": 0}]},
    "verdicts": [{"signature": "drift", "status": "ok", "text": "fine", "evidence": "0.1"}],
}  # fmt: skip


@cases(120)
@given(st.data(), st.sampled_from(["report", "report", "diagnose"]))
def test_kept_results(place: Path, data: st.DataObject, command: str) -> None:
    """results.json and diagnosis.json of wrong shape, for the commands that read them."""
    for name, whole in (("results.json", RESULTS), ("diagnosis.json", DIAGNOSIS)):
        content = json.dumps(data.draw(changed(whole)) if data.draw(st.booleans()) else whole).encode(errors="surrogatepass")
        Path("kept").mkdir(exist_ok=True)
        (Path("kept") / name).write_bytes(data.draw(damaged(content)) if data.draw(st.integers(0, 4)) == 0 else content)
    if command == "report":
        run(["report", "whole", "--evaluation", "kept", "--diagnosis", "kept", "--out", "out/page.html"])
    else:
        run(["diagnose", "whole", "--evaluation", "kept", "--levels", "0", "--out", "out"])
