import re
import subprocess
import sys
from pathlib import Path

import d3hr

ROOT = Path(__file__).parent.parent


def test_the_public_names_are_listed_and_there() -> None:
    assert sorted(d3hr.__all__) == d3hr.__all__
    for name in d3hr.__all__:
        assert getattr(d3hr, name).__doc__


def test_a_box_imports_only_what_stands_left_of_it() -> None:
    """Data flows one way: images, prior, distillation, storage, evaluation, baselines, diagnostics, comparison, recipes, report."""
    order = [
        "errors", "seeds", "progress", "checksums", "files", "locking", "staging", "reading", "class_folders", "encoding", "contact_sheet",
        "set_card", "decoding", "sources", "data", "batches", "prior", "execution", "distillation", "manifest", "storage", "set_writing",
        "evaluation", "baselines", "diagnostics", "comparison", "planning", "recipes", "report", "demo", "commands", "__main__",
    ]  # fmt: skip
    allowed_back = {
        ("distillation", "manifest"),
        ("distillation", "storage"),
        ("distillation", "set_writing"),
        ("set_card", "manifest"),
    }  # storage and errors may be used by every box
    for path in (ROOT / "d3hr").rglob("*.py"):
        box = path.relative_to(ROOT / "d3hr").with_suffix("").parts[0]
        if box == "__init__":
            continue
        for line in path.read_text().splitlines():
            match = re.match(r"\s*from d3hr\.(\w+)", line)
            if match and (box, match[1]) not in allowed_back:
                assert order.index(match[1]) <= order.index(box), f"{path}: {line}"


def test_help_needs_no_networks() -> None:
    """Importing the command line loads neither diffusers nor transformers, which cost seconds."""
    code = (
        "import sys, d3hr.__main__; print([name for name in ('diffusers', 'transformers', 'matplotlib', 'kornia') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
