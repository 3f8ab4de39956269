import subprocess
import sys

import d3hr


def test_the_public_names_are_listed_and_there() -> None:
    assert sorted(d3hr.__all__) == d3hr.__all__
    for name in d3hr.__all__:
        assert getattr(d3hr, name).__doc__


def test_help_needs_no_networks() -> None:
    """Importing the command line loads neither diffusers nor transformers, which cost seconds."""
    code = (
        "import sys, d3hr.__main__; print([name for name in ('diffusers', 'transformers', 'matplotlib', 'kornia') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip() == "[]"
