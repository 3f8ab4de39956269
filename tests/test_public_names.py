import importlib
import pkgutil
import subprocess
import sys

import pytest

import d3hr


def test_the_public_names_are_listed_and_there() -> None:
    assert sorted(d3hr.__all__) == d3hr.__all__
    for name in d3hr.__all__:
        documentation = getattr(d3hr, name).__doc__
        assert documentation and not documentation.startswith(f"{name}("), f"{name} has no docstring but its signature"


HEAVY = {"torch", "numpy", "diffusers", "transformers", "matplotlib", "kornia", "datasets"}


def loaded_after(code: str) -> set[str]:
    """Return which heavy libraries a process has loaded after ``code``, which may end it."""
    whole = f"import atexit, sys; atexit.register(lambda: print(*sorted({HEAVY} & sys.modules.keys()))); {code}"
    shown = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=True, timeout=60).stdout
    return set(shown.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]], ids=" ".join)
def test_help_loads_no_numerical_library(arguments: list[str]) -> None:
    assert loaded_after(f"from d3hr.__main__ import main; main({arguments})") == set()


@pytest.mark.slow
def test_a_public_name_is_loaded_when_it_is_used() -> None:
    assert loaded_after("import d3hr") == set()
    assert "torch" in loaded_after("import d3hr; d3hr.load_images")


def test_every_module_can_be_imported() -> None:
    """Whatever its imports name is there in the installed versions; what belongs to an extra is imported only when it is used."""
    for module in pkgutil.walk_packages(d3hr.__path__, "d3hr."):
        importlib.import_module(module.name)
