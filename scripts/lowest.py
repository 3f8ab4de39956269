"""Print the lowest versions that pyproject.toml allows, as constraints for pip; torch stays the tested build.

Usage: ``python scripts/lowest.py > lowest.txt && pip install --constraint lowest.txt .``
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lowest(requirements: list[str], tested: str) -> list[str]:
    """Return ``name==version`` of every ``name>=version``; of torch, which has no small builds of old versions, the line in ``tested``."""
    bounds = dict(re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)$", requirement).groups() for requirement in requirements)  # type: ignore[union-attr]
    (torch,) = re.findall(r"^torch==.*$", tested, re.MULTILINE)
    return [torch if name == "torch" else f"{name}=={version}" for name, version in bounds.items()]


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    print(*lowest([*project["dependencies"], *extras["lora"]], (ROOT / "constraints.txt").read_text()), sep="\n")
