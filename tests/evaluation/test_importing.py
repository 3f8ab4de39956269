import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from d3hr import load_images
from d3hr.__main__ import main
from d3hr.errors import ClassMismatch, DataError, OutputError, ResultsError, SettingsError
from d3hr.evaluation.evaluate import describe_teacher
from d3hr.evaluation.images import real_images
from d3hr.evaluation.importing import import_teacher
from d3hr.evaluation.teachers import Teacher
from tests.conftest import MakeFolder, tree

THREE = ("cat", "ant", "bee")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Weights = dict[str, Tensor]


def published(depths: tuple[int, ...], width: int, *, expansion: int = 0, shortcuts: bool = True, stem: int = 3) -> Weights:
    """Random weights by the names of torchvision; bottlenecks where there is an expansion; shortcuts with or without weights."""
    generator = torch.Generator().manual_seed(0)
    made = Weights()

    def convolution(name: str, norm: str, inputs: int, outputs: int, side: int) -> None:
        made[f"{name}.weight"] = torch.randn(outputs, inputs, side, side, generator=generator) * (2 / (inputs * side**2)) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            made[f"{norm}.{part}"] = torch.rand(outputs, generator=generator) + 0.5
        made[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    convolution("conv1", "bn1", 3, width, stem)
    inputs = width
    for stage, depth in enumerate(depths):
        inner = width * 2**stage
        outputs = inner * (expansion or 1)
        for block in range(depth):
            at = f"layer{stage + 1}.{block}"
            shapes = [(inputs, inner, 1), (inner, inner, 3), (inner, outputs, 1)] if expansion else [(inputs, inner, 3), (inner, inner, 3)]
            for layer, (before, after, side) in enumerate(shapes, 1):
                convolution(f"{at}.conv{layer}", f"{at}.bn{layer}", before, after, side)
            if shortcuts and inputs != outputs:
                convolution(f"{at}.downsample.0", f"{at}.downsample.1", inputs, outputs, 1)
            inputs = outputs
    made["fc.weight"] = torch.randn(len(THREE), inputs, generator=generator) / inputs**0.5
    made["fc.bias"] = torch.randn(len(THREE), generator=generator)
    return made


def logits_of(weights: Weights, images: Tensor) -> Tensor:
    """The published network step by step: images as it takes them, a 3x3 stem, halvings in the first 3x3 convolution of a stage."""

    def layer(name: str, norm: str, maps: Tensor, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        maps = F.conv2d(maps, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, var, scale, shift = (weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(maps, mean, var, scale, shift)

    maps = layer("conv1", "bn1", images).relu()
    for stage in range(1, 5):
        for block in range(30):
            at = f"layer{stage}.{block}"
            if f"{at}.conv1.weight" not in weights:
                break
            stride = 2 if stage > 1 and block == 0 else 1
            deep = f"{at}.conv3.weight" in weights
            inner = layer(f"{at}.conv1", f"{at}.bn1", maps, 1 if deep else stride).relu()
            inner = layer(f"{at}.conv2", f"{at}.bn2", inner, stride if deep else 1)
            inner = layer(f"{at}.conv3", f"{at}.bn3", inner.relu()) if deep else inner
            if f"{at}.downsample.0.weight" in weights:
                maps = layer(f"{at}.downsample.0", f"{at}.downsample.1", maps, stride)
            elif stride == 2:  # option A: every second pixel, new channels of zeros around
                added = (inner.shape[1] - maps.shape[1]) // 2
                zeros = torch.zeros_like(inner[:, :added])
                maps = torch.cat([zeros, maps[:, :, ::2, ::2], zeros], dim=1)
            maps = (inner + maps).relu()
    return F.linear(maps.mean(dim=(2, 3)), weights["fc.weight"], weights["fc.bias"])


def small() -> Weights:
    return published((3, 3, 3), 16, shortcuts=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(small(), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def imported(file: Path, **changes: Any) -> Teacher:
    return import_teacher(file, file.with_name("out"), **{"student": "resnet20", "class_names": THREE, **changes})


@pytest.mark.parametrize(
    ("student", "depths", "width", "expansion", "shortcuts"),
    [
        ("resnet20", (3, 3, 3), 16, 0, False),
        ("resnet56", (9, 9, 9), 16, 0, False),
        pytest.param("resnet18", (2, 2, 2, 2), 64, 0, True, marks=pytest.mark.slow),
        pytest.param("resnet50", (3, 4, 6, 3), 64, 4, True, marks=pytest.mark.slow),
    ],
)
def test_the_logits_are_those_of_the_published_network(
    student: str, depths: tuple[int, ...], width: int, expansion: int, shortcuts: bool, tmp_path: Path
) -> None:
    """Images in [-1, 1] are (x + 1) / 2 in [0, 1], less mean, over std; then every layer as published, computed by hand above."""
    weights = published(depths, width, expansion=expansion, shortcuts=shortcuts)
    save_file(weights, tmp_path / "w.safetensors")
    teacher = imported(tmp_path / "w.safetensors", student=student, mean=MEAN, std=STD)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    expected = logits_of(weights, ((images + 1) / 2 - mean) / std)
    torch.testing.assert_close(teacher.logits(images), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert torch.equal(teacher.logits(images, ("ant", "bee", "cat")), teacher.logits(images)[:, [1, 2, 0]])
    torch.testing.assert_close(teacher.network.classifier(teacher.embed(images)), teacher.logits(images))


def test_names_and_wrappers_of_others_are_understood(file: Path, tmp_path: Path) -> None:
    """A .pth of a training in parallel with a linear head, an old one without counts of batches, float16: the same teacher."""
    teacher = imported(file)
    state = {f"module.{name.replace('fc.', 'linear.')}": value for name, value in small().items() if "batches" not in name}
    for number, content in enumerate(({"state_dict": state, "epoch": 200, "best": 91.7}, {"net": state}, state)):
        torch.save(content, tmp_path / f"{number}.pth")
        again = import_teacher(tmp_path / f"{number}.pth", tmp_path / f"t{number}", student="resnet20", class_names=THREE)
        assert again.fingerprint == teacher.fingerprint
    save_file({name: value.half() for name, value in small().items()}, tmp_path / "half.safetensors")
    half = import_teacher(tmp_path / "half.safetensors", tmp_path / "half", student="resnet20", class_names=THREE)
    assert next(half.network.parameters()).dtype == torch.float32


@pytest.mark.slow
def test_shortcuts_have_two_names(tmp_path: Path) -> None:
    weights = published((2, 2, 2, 2), 64)
    save_file({name.replace("downsample", "shortcut"): value for name, value in weights.items()}, tmp_path / "w.safetensors")
    teacher = imported(tmp_path / "w.safetensors", student="resnet18")
    assert torch.equal(
        teacher.network.state_dict()["network.encoder.stages.1.layers.0.shortcut.convolution.weight"],
        weights["layer2.0.downsample.0.weight"],
    )


def test_mean_and_std_belong_to_the_teacher(file: Path, tmp_path: Path) -> None:
    """They are kept, and change its fingerprint; a teacher without them takes [-1, 1], and its folder may lack them."""
    plain = imported(file)
    other = import_teacher(file, tmp_path / "other", student="resnet20", class_names=THREE, mean=MEAN, std=STD)
    assert (other.mean, other.std, plain.mean, plain.std) == (MEAN, STD, None, None)
    assert plain.fingerprint != other.fingerprint
    halves = import_teacher(file, tmp_path / "halves", student="resnet20", class_names=THREE, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(halves.logits(images), plain.logits(images), rtol=1e-4, atol=1e-4)
    about = json.loads((tmp_path / "out" / "teacher.json").read_text())
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "model.safetensors").write_bytes((tmp_path / "out" / "model.safetensors").read_bytes())
    old = {key: about[key] for key in ("student", "class_names", "image_size")}
    (tmp_path / "old" / "teacher.json").write_text(json.dumps(old))
    assert Teacher.load(tmp_path / "old").fingerprint == plain.fingerprint
    (tmp_path / "old" / "teacher.json").write_text(json.dumps(old | {"mean": MEAN}))
    with pytest.raises(ResultsError, match="mean and std belong together"):
        Teacher.load(tmp_path / "old")


def test_the_accuracy_is_measured_where_there_are_test_images(file: Path, image_folder: MakeFolder, tmp_path: Path) -> None:
    """Once, on images whose classes are matched by name; without them it is not known. A repeated import changes nothing."""
    tests = load_images(image_folder({"ant": 3, "bee": 4, "cat": 5}, size=16))
    known = import_teacher(file, tmp_path / "known", student="resnet20", class_names=THREE, test=tests)
    assert known.about["accuracy"] == pytest.approx(
        describe_teacher(known, real_images(tests, tests.class_names, 32))["accuracy"], abs=1e-6
    )
    assert known.about["test"]["images"] == 12
    assert imported(file).about["accuracy"] is None
    before = tree(tmp_path / "known")
    import_teacher(file, tmp_path / "known", student="resnet20", class_names=THREE, test=tests)
    assert tree(tmp_path / "known") == before
    with pytest.raises(OutputError, match="another --out"):
        import_teacher(file, tmp_path / "known", student="resnet20", class_names=THREE)
    with pytest.raises(ClassMismatch):
        import_teacher(file, tmp_path / "x", student="resnet20", class_names=("ant", "bee", "dog"), test=tests)
    assert not (tmp_path / "x").exists()


def test_class_names_come_from_a_list_or_a_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\nant\nbee\n")
    (tmp_path / "names.yaml").write_text("1: ant\n0: cat\n2: bee\n")
    given: tuple[str | Path, ...] = (tmp_path / "names.txt", str(tmp_path / "names.yaml"), "[cat, ant, bee]")
    for number, names in enumerate(given):
        made = import_teacher(file, tmp_path / f"t{number}", student="resnet20", class_names=names)
        assert made.class_names == THREE
    assert import_teacher(file, tmp_path / "digits", student="resnet20", class_names="[0, 01, no]").class_names == ("0", "01", "no")
    (tmp_path / "names.yaml").write_text("n01: ant\nn02: cat\nn03: bee\n")
    with pytest.raises(SettingsError, match="which output is which class"):
        imported(file, class_names=tmp_path / "names.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": "convnet3"}, r"cannot be imported(?s:.*)resnet56"),
        ({"class_names": ("a", "b")}, r"has 3 outputs(?s:.*)2 class names"),
        ({"class_names": ("a", "b", "a")}, "several outputs called a"),
        ({"class_names": ("a", "b", "")}, "not a different name"),
        ({"class_names": "[a, b"}, "no list"),
        ({"image_size": 0}, "too small"),
        ({"image_size": 10**9}, "too large"),
        ({"mean": MEAN}, "--mean alone"),
        ({"mean": MEAN, "std": (1.0, 0.0, 1.0)}, "must be positive"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str, file: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        imported(file, **changes)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_weights_of_another_network_are_refused_by_name(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        imported(file, student="resnet32")
    assert "looks like resnet20: 3 blocks in each of 3 stages, a stem of 3 x 3, 3 outputs" in str(refused.value)
    assert "missing: layer1.3.conv1.weight" in str(refused.value)
    with pytest.raises(DataError, match=r"unexpected: layer1\.2\.bn1\.bias"):
        imported(file, student="resnet18")
    wrong = small() | {"conv1.weight": torch.zeros(16, 3, 7, 7), "bn9.weight": torch.zeros(1)}
    save_file(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(DataError, match=r"a stem of 7 x 7(?s:.*)bn9\.weight(?s:.*)conv1\.weight \(16 x 3 x 7 x 7, not 16 x 3 x 3 x 3\)"):
        imported(tmp_path / "wrong.safetensors")
    save_file({"decoder.a": torch.zeros(1), "encoder.b": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(DataError, match=r"no ResNet: its first names are decoder\.a, encoder\.b"):
        imported(tmp_path / "wrong.safetensors")
    odd = published((3, 4, 6, 3), 8)
    save_file(odd, tmp_path / "wrong.safetensors")
    with pytest.raises(DataError, match="a network that d3hr does not have: 3, 4, 6, 3 blocks in 4 stages"):
        imported(tmp_path / "wrong.safetensors", student="resnet50")


def test_what_holds_no_weights_is_refused(file: Path, tmp_path: Path) -> None:
    """A whole network is Python code, which is not loaded; noise, a wrong suffix, nothing, and numbers that are none."""
    torch.save(nn.Linear(2, 2), tmp_path / "code.pth")
    with pytest.raises(DataError, match=r"holds more than weights(?s:.*)torch\.nn\.modules\.linear\.Linear(?s:.*)state_dict"):
        imported(tmp_path / "code.pth")
    for name in ("noise.pth", "noise.safetensors"):
        (tmp_path / name).write_bytes(b"noise" * 100)
        with pytest.raises(DataError, match="cannot be read"):
            imported(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        imported(file.rename(tmp_path / "other.pth"))
    with pytest.raises(DataError, match="no such file"):
        imported(tmp_path / "nowhere.pth")
    contents: tuple[Any, ...] = ({"epoch": 3}, [1, 2], {"state_dict": {}})
    for content in contents:
        torch.save(content, tmp_path / "none.pth")
        with pytest.raises(DataError, match="holds no weights"):
            imported(tmp_path / "none.pth")
    save_file(small() | {"fc.bias": torch.tensor([0.0, float("nan"), 0.0])}, tmp_path / "nan.safetensors")
    with pytest.raises(DataError, match=r"undefined values in fc\.bias"):
        imported(tmp_path / "nan.safetensors")


def test_the_command(file: Path, image_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """import-teacher with and without test images, then evaluate with the soft labels of the teacher whose accuracy was not known."""
    image_folder({"ant": 2, "bee": 2, "cat": 2})
    monkeypatch.chdir(file.parent)
    given = [
        "import-teacher",
        file.name,
        "--student",
        "resnet20",
        "--class-names",
        "[cat, ant, bee]",
        "--mean",
        str([*MEAN]),
        "--std",
        str([*STD]),
    ]
    assert main([*given, "--out", "t"]) == 0
    assert "resnet20 with the outputs cat, ant, bee: its accuracy is not known. It is in t." in capsys.readouterr().out
    assert main([*given, "--out", "tested", "--test", "images", "--json"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["accuracy"] <= 1
    Path("soft.yaml").write_text("base: stored\nepochs: 1\n")
    soft = ["--protocol", "soft.yaml", "--student", "convnet1", "--seeds", "[0]", "--json"]
    assert main(["evaluate", "images", "--test", "images", "--data", "images", "--teacher", "t", *soft]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["teacher"]["source"] == "t"
