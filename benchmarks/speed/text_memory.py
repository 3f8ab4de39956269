"""Memory of a text-to-image prior on the CPU: that of Stable Diffusion 1.5's shape with random weights in float32, 512 pixels, two images.

A fresh process loads the prior, encodes a prompt, and encodes, inverts, denoises and decodes two images over some levels, without guidance;
each of these reports its own peak of resident memory. The text encoder is loaded for the prompt alone: afterwards the process holds no more
than before, and no text model is left among its objects, so that inversion never has both.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import d3hr
from benchmarks.harness import argument_parser, in_fresh_process, peak_mib, record, resident_mib
from d3hr.distillation.ddim import denoise, invert
from d3hr.planning.known_shapes import SHAPES

SHAPE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
IMAGES, STEPS = 2, 50


def write_pipeline(folder: Path) -> None:
    """Save a ``StableDiffusionPipeline`` of the shape, with the text encoder of CLIP ViT-L/14 and a tokenizer of letters."""
    import diffusers
    import transformers

    denoiser, autoencoder = SHAPES[SHAPE].parts("cpu")
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    words = folder / "words"
    words.mkdir(parents=True)
    (words / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    config = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, max_position_embeddings=77
    )
    diffusers.StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=transformers.CLIPTextModel(config),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(words, model_max_length=77),
        unet=denoiser.network,
        scheduler=diffusers.DDIMScheduler.from_config(dict(SHAPES[SHAPE].scheduler)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "prior")


def measured(folder: Path, level: int) -> dict[str, Any]:
    """Do it all in this process; return its memory in MiB, at the peak of each part and afterwards, and the text models left behind."""
    import transformers

    phases: dict[str, dict[str, float]] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # begins a new peak
        started = time.monotonic()
        yield
        gc.collect()
        phases[name] = {"peak_mib": round(peak_mib()), "after_mib": round(resident_mib()), "seconds": round(time.monotonic() - started, 1)}
        print(f"{name}: {phases[name]}", flush=True)

    start = round(resident_mib())
    with phase("load"):
        prior = d3hr.Prior.from_pretrained(folder / "prior", device="cpu")
    with phase("encode the prompt"):
        condition = prior.conditions(["cat"])["cat"]
    text_models = sum(issubclass(type(each), transformers.PreTrainedModel) for each in gc.get_objects())
    images = torch.rand(IMAGES, 3, prior.image_size, prior.image_size) * 2 - 1
    walk: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "encode the images": prior.encode,
        "invert": lambda z: invert(prior, z, condition, level=level, steps=STEPS, guidance_scale=1.0),
        "denoise": lambda z: denoise(prior, z, condition, level=level, steps=STEPS, guidance_scale=1.0),
        "decode": prior.decode,
    }
    values = images
    for name, function in walk.items():
        with phase(name):
            values = function(values)
    weights = {name: round(getattr(prior, name).num_parameters() * 4 / 2**20) for name in ("network", "vae")}
    return {"start_mib": start, "weights_mib": weights, "phases": phases, "text_models_during_inversion": text_models}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--level", type=int, default=2, help="levels to invert and denoise: one call of the network each (default: 2)")
    level = parser.parse_args(arguments).level
    with tempfile.TemporaryDirectory() as temporary:
        in_fresh_process(write_pipeline, Path(temporary))
        found = in_fresh_process(measured, Path(temporary), level)
    phases = found["phases"]
    found["peak_mib"] = max(phases[name]["peak_mib"] for name in phases)
    found["peak_of_inversion_mib"] = phases["invert"]["peak_mib"]
    found["text_encoder_mib"] = phases["encode the prompt"]["peak_mib"] - phases["load"]["after_mib"]
    found["left_of_text_encoder_mib"] = phases["encode the prompt"]["after_mib"] - phases["load"]["after_mib"]
    print(json.dumps(found, indent=1))
    record("text_memory", {"shape": SHAPE, "images": IMAGES, "steps": STEPS, "level": level, "precision": "fp32"}, found)


if __name__ == "__main__":
    main()
