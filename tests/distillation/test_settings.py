"""One declaration of each setting: everything that takes settings takes those of :class:`DistillSettings`, with their types."""

from typing import Any, Literal, get_type_hints

import pytest
from pydantic import BaseModel

from d3hr.distillation.overrides import DistillOverrides, ExpandOverrides
from d3hr.distillation.presets import PRESETS, DistillOptions, ExpandOptions, GroupOptions, distill_settings
from d3hr.distillation.settings import ChoiceSettings, DistillSettings, GroupSettings, StatisticsSettings
from d3hr.errors import SettingsError
from d3hr.recipes.recipe import DistillSection

AUTOMATIC = int | Literal["auto"]


def types_of(model: type[BaseModel]) -> dict[str, Any]:
    return {name: field.annotation for name, field in model.model_fields.items()}


def test_options_have_the_types_of_the_settings() -> None:
    """All but the IPC, which is an argument of its own; the level and the batch size may be left to a measurement."""
    settings = types_of(DistillSettings)
    del settings["ipc"]
    assert get_type_hints(DistillOptions) == {**settings, "level": AUTOMATIC, "batch_size": AUTOMATIC}
    assert get_type_hints(GroupOptions).keys() == GroupSettings.model_fields.keys() - {"ipc"}
    drawn = DistillSettings.model_fields.keys() - StatisticsSettings.model_fields.keys() - ChoiceSettings.model_fields.keys() - {"ipc"}
    assert get_type_hints(ExpandOptions).keys() == drawn | {"candidates"}


@pytest.mark.parametrize(
    ("derived", "options", "more"),
    [
        (DistillOverrides, DistillOptions, {}),
        (ExpandOverrides, ExpandOptions, {}),
        (DistillSection, DistillOptions, {"preset": str, "precision": Literal["fp32", "bf16", "fp16"]}),
    ],
)
def test_every_option_may_be_left_out(derived: type[BaseModel], options: type[DistillOptions], more: dict[str, Any]) -> None:
    """The flags of ``distill``, ``plan`` and ``expand`` and the section of a recipe are the options, each with its documentation."""
    assert types_of(derived) == {**{name: kind | None for name, kind in get_type_hints(options).items()}, **more}
    assert all(field.description for field in derived.model_fields.values())


def test_a_recipe_takes_every_option() -> None:
    every: dict[str, Any] = {
        "steps": 20, "forward_process": "inversion", "level": 12, "inversion_guidance": 2.0, "inversion_stride": 2, "solver": "ddim",
        "batch_size": 8, "statistics_dtype": "float16", "max_images_per_class": 9, "tolerance": 0.1, "sample_seed": 5,
        "modes": 3, "rank": 2,
        "strategy": "exact", "num_candidates": 7, "weights": (1.0, 2.0, 3.0), "skewness": "per_image", "exact_std": "population",
        "temperature": 0.5, "seed_by_class": False, "seed": 4, "denoising_guidance": 3.0,
    }  # fmt: skip
    others = {"statistics_level", "denoising_level", *ChoiceSettings.model_fields}
    assert every.keys() | others == DistillOptions.__annotations__.keys()
    section = DistillSection(preset="gentle", **every)
    assert section.resolved == distill_settings("gentle", **every)
    assert section.options == every


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {"real"}))
def test_only_what_has_an_effect_is_written(preset: str) -> None:
    """A set of clean latents is the same whatever guidance and solver, so neither its manifest nor its key holds them."""
    written = distill_settings(preset).as_values()
    assert written.keys() == DistillSettings.model_fields.keys() - {"sample_seed"} - ChoiceSettings.model_fields.keys()
    assert DistillSettings(**written) == distill_settings(preset)
    clean = distill_settings(preset, level=0)
    assert written.keys() - clean.as_values().keys() == {"inversion_guidance", "inversion_stride", "solver", "denoising_guidance"}
    assert clean.method == "latent_gaussian"


def test_what_is_measured_starts_from_the_preset() -> None:
    """``auto`` is a level at the same share of the grid, 31 of 50 or 6 of 10, and the preset's batch size, until they are measured."""
    settings = distill_settings(level="auto", steps=10, batch_size="auto")
    assert (settings.statistics_level, settings.denoising_level, settings.batch_size) == (6, 6, 64)


def test_a_contradiction_names_the_settings() -> None:
    with pytest.raises(SettingsError, match="the settings: only groups from"):
        distill_settings(statistics_level=0)
    with pytest.raises(SettingsError, match="--level with --statistics-level"):
        distill_settings(level=3, statistics_level=3)


@pytest.mark.parametrize(
    ("options", "decide"),
    [
        ({}, {"weights", "skewness", "strategy", "modes", "components", "space", "keep", "rule", "pack"}),
        ({"rule": "easiest"}, {"keep", "rule", "pack"}),
        ({"keep": "easiest", "rule": "centre"}, {"keep", "easiest_share", "rule", "components", "space", "pack"}),
        ({"rule": "margin", "keep": "undoubted"}, {"keep", "rule", "pack"}),
    ],
)
def test_only_what_decides_the_choice_is_written(options: DistillOptions, decide: set[str]) -> None:
    """Next to what every set has: its IPC, seed, levels, and how many images of a class are looked at."""
    of_all = {"candidates", "ipc", "seed", "statistics_level", "denoising_level", "max_images_per_class"}
    settings = distill_settings("real", **options)
    assert settings.as_values().keys() == decide | of_all
    assert DistillSettings(**settings.as_values()).as_values() == settings.as_values()


def test_candidates_have_a_preset_of_their_own() -> None:
    assert distill_settings(candidates="real") == distill_settings("real")
    assert distill_settings(candidates="mixed").modes == distill_settings("mixture").modes
    assert distill_settings() == distill_settings("paper")
