"""What share of the time of a whole distillation of photos do the networks take, which nothing but other networks could shorten?

Photos are written as JPEG files of 500 x 375 pixels. A fresh process opens them, loads an untrained prior and distils them, while a clock
runs in each call of the networks: encoding, prediction of noise, decoding. The share is their time over that of everything from the first
look at the files to the finished set. Then a second set of the same photos, whose files are known by then.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import torch

import d3hr
from benchmarks.harness import argument_parser, in_fresh_process, record, write_photos, write_untrained_prior
from d3hr.data.scan_cache import CACHE_VARIABLE
from d3hr.prior.presets import PRESETS

GOAL = 0.85
CALLS = ("encode", "slope", "decode")
"""Methods of a prior that run its networks."""


def clocked(calls: dict[str, float], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that adds the seconds of each call, by the clock, to ``calls``."""

    @wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            calls[name] += time.perf_counter() - start

    return run


def distil(work: Path, out: str, threads: int, settings: dict[str, Any]) -> dict[str, float]:
    """Distil ``work/photos`` in this process, and return the seconds of the whole, of the look at the files, and of the networks' calls."""
    torch.set_num_threads(threads)
    os.environ[CACHE_VARIABLE] = str(work / "cache")
    calls = dict.fromkeys(CALLS, 0.0)
    for name in CALLS:
        setattr(d3hr.Prior, name, clocked(calls, name, getattr(d3hr.Prior, name)))
    start = time.perf_counter()
    images = d3hr.load_images(work / "photos")
    looked = time.perf_counter()
    d3hr.distill(images, d3hr.Prior.from_pretrained(work / "prior"), work / out, **settings)
    return {"total": time.perf_counter() - start, "look": looked - start, **calls}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--prior", default="small", choices=sorted(PRESETS), help="preset of the untrained prior")
    parser.add_argument("--side", type=int, default=64, help="of the prior's images, in pixels")
    parser.add_argument("--preset", default="fast", help="of the distillation")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=1000, help="of the search for groups")
    parser.add_argument("--threads", type=int, default=1, help="of the networks; images are decoded by as many as there are processors")
    options = parser.parse_args(arguments)
    counts = {f"class {index}": options.photos // options.classes for index in range(options.classes)}
    settings = {"preset": options.preset, "ipc": options.ipc, "num_candidates": options.candidates}
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_photos(work / "photos", counts)
        write_untrained_prior(work / "prior", PRESETS[options.prior], options.side, list(counts))
        for out in ("first", "second"):
            seconds = in_fresh_process(distil, work, out, options.threads, settings)
            networks = sum(seconds[name] for name in CALLS)
            figures[out] = {**seconds, "networks": networks, "share": networks / seconds["total"]}
            print(
                f"{out} set: {seconds['total']:.1f} s, of which networks {networks:.1f} s, the look at the files {seconds['look']:.1f} s: "
                f"{networks / seconds['total']:.1%} (goal: at least {GOAL:.0%})",
                flush=True,
            )
    record("distill_share", {**vars(options), "goal": GOAL}, figures)


if __name__ == "__main__":
    main()
