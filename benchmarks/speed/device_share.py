"""What share of the CPU's measured matrix peak does inversion reach, at the shape of DiT-S/2?

The peak is that of one large product, in the same dtype and on the same threads, measured in turns with inversions of several levels by
``d3hr.invert``. Floating-point operations are those of all products, counted by PyTorch while an inversion runs with attention as plain
products; activations, norms and copies count as time without any. bfloat16 is measured where the CPU has units for it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import d3hr
from benchmarks.harness import argument_parser, record, write_untrained_prior
from d3hr.prior.precision import Units
from d3hr.prior.presets import PRESETS

SHAPE = PRESETS["base"].model_copy(
    update={
        "autoencoder_widths": (8, 16),
        "autoencoder_layers": 1,
        "layers": 12,
        "heads": 6,
        "width": 384,
        "tokens": 256,
        "latent_size": 32,
    }
)
"""DiT-S/2: 12 blocks of width 384 on latents of 32 x 32 in patches of 2, which is 256 tokens; the autoencoder is not measured."""
SIDE, CLASSES = 64, tuple("abcdefghij")
GOALS = {"fp32": 0.75, "bf16": 0.70}


def seconds_of(run: Callable[[], object]) -> float:
    """Return how long a function takes: its processor time on one thread, which other work moves little, else by the clock."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    return clock() - start


def share(prior: d3hr.Prior, batch: int, levels: int, turns: int, product: int) -> dict[str, Any]:
    """Return operations a second of inversion in batches of a size and of a square product, from the fastest turn of each."""
    dtype = prior.denoiser.weight.dtype
    a, b = (torch.randn(product, product).to(dtype) for _ in range(2))
    latents = torch.randn(batch, *prior.latent_shape)
    labels = torch.arange(batch) % len(CLASSES)

    def invert() -> Tensor:
        return d3hr.invert(prior, latents, labels, level=levels, steps=50, guidance_scale=1.0)

    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        invert()
    operations = counted.get_total_flops()
    invert()
    peaks, rates = list[float](), list[float]()
    for _ in range(turns):
        peaks.append(max(2 * product**3 / seconds_of(lambda: a @ b) for _ in range(2)))
        rates.append(operations / seconds_of(invert))
    return {"gflops": max(rates) / 1e9, "peak_gflops": max(peaks) / 1e9, "share": max(rates) / max(peaks), "operations": operations}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 32], help="images of a batch")
    parser.add_argument("--levels", type=int, default=3, help="levels of an inversion, each a call of the network")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--product", type=int, default=2048, help="side of the product that shows the peak")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    units = Units.of(torch.device("cpu"))
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_untrained_prior(Path(folder) / "prior", SHAPE, SIDE, CLASSES)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            if name == "bf16" and not (units.avx512_bf16 or units.amx):
                figures[name] = None
                print("bf16: this CPU has no units for it: not measured")
                continue
            prior = d3hr.Prior.from_pretrained(Path(folder) / "prior", device="cpu", dtype=dtype)
            rows = {}
            for batch in options.batches:
                row = rows[batch] = share(prior, batch, options.levels, options.turns, options.product)
                print(
                    f"{name}, {batch:3d} images at once: {row['gflops']:6.1f} GFLOP/s of {row['peak_gflops']:6.1f}: {row['share']:.1%}",
                    flush=True,
                )
            best = max(rows, key=lambda batch: rows[batch]["gflops"])
            figures[name] = {"batches": rows, "best_batch": best, "best_share": rows[best]["share"]}
            print(f"{name}: {rows[best]['share']:.1%} of the peak in batches of {best} (goal: at least {GOALS[name]:.0%})")
    record("device_share", {**vars(options), "shape": SHAPE.model_dump(mode="json"), "goals": GOALS}, figures)


if __name__ == "__main__":
    main()
