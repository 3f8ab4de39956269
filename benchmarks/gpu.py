"""Everything that is to be measured on a GPU, in one run of some minutes, for the day a card is at hand.

    python benchmarks/gpu.py --minutes 8 --data cifar10 --out gpu

Its parts, in this order, are

    agreement   what the CPU and the GPU compute, in float32 and bfloat16, at every stage
    peak        matrix products of the card
    inversion   inversion and drawing at the shape of DiT-XL/2 with random weights, eager and compiled
    rates       encoding, decoding, and steps of students and teachers
    fit         fits a prior to CIFAR-10 for the time left, whose weights are kept in small files
    sets        distils with it, and compares the sets with random real images

Each part has a share of the time, and a file PART.json in --out that grows with each measurement: what was measured is kept whatever comes
later. A part for which too little time is left is skipped; one that fails, or hangs, is recorded with its error, and the next goes on. A
table and summary.json come last. `--scale tiny` runs the same code on small shapes in seconds, on a CPU too.

It runs from a checkout; d3hr need not be installed. What an image with PyTorch, accelerate and transformers lacks can be carried along as
wheels (17 MB), and `--wheels FOLDER` uses them without installing anything. Fetch them for the image's Python, such as 3.12, with

    python -m pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \\
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d wheels annotated-types datasets diffusers dill \\
        docstring-parser importlib-metadata jsonargparse kornia kornia-rs lazy-importer lazy-loader multiprocess pydantic pydantic-core \\
        typeshed-client typing-inspection
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules are no packages of their own

from benchmarks.gpu_parts.schedule import PARTS, Plan, summarise, supervise  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python benchmarks/gpu.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything, from start to end (default: 8)")
    parser.add_argument("--scale", choices=["full", "tiny"], default="full", help="sizes (default: full)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "work" / "gpu", help="folder for results, which is made")
    parser.add_argument(
        "--data", help="images to fit to, with splits train and test: what d3hr opens; by default those of benchmarks.real_data"
    )
    parser.add_argument("--wheels", type=Path, help="folder of wheels to use, which are not installed")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="some parts only")
    parser.add_argument("--worker", type=float, metavar="UNTIL", help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    plan = Plan(options.out.resolve(), [name for name in PARTS if name in options.parts], 60 * options.minutes, options.scale == "full")
    if options.worker is not None:
        from benchmarks.gpu_parts.worker import work

        work(plan, options.worker, options.scale, options.data)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no worker outlives this process
    until = time.time() + plan.seconds
    plan.clear()
    with tempfile.TemporaryDirectory() as temporary:
        packages = Path(temporary)
        carry_packages(packages, options.wheels)
        path = os.pathsep.join([str(ROOT), str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])

        def start(parts: Sequence[str]) -> subprocess.Popen[bytes]:
            command = [sys.executable, __file__, *given, "--worker", str(until), "--parts", *parts]
            return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})

        supervise(plan, start, until)
    print(summarise(plan))


def carry_packages(folder: Path, wheels: Path | None) -> None:
    """Unpack wheels into a folder that Python can import from, and let d3hr be found as the package that it is in this checkout."""
    if wheels is not None:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(folder)]
        subprocess.run([*install, *map(str, sorted(wheels.glob("*.whl")))], check=True)
    try:
        version("d3hr")
    except PackageNotFoundError:
        number = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        about = folder / f"d3hr-{number}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: d3hr\nVersion: {number}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
