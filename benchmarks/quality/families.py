"""Do sets drawn from priors of other families teach as much as those from a DiT, at equal minutes of fitting? On the digits.

Small networks of each family are trained by one loop for the same CPU time (that of this process: other work on the machine does not
count), in latents of one autoencoder or in pixels. Sets are drawn with the same settings; a level is that of the same ratio of noise to
signal. Three draws, ConvNet-3 with hard labels, the test split, which decided nothing. Finished priors, sets and trainings are kept.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn
from torch.nn import functional as F

import d3hr
from benchmarks.harness import WORK, argument_parser, record
from d3hr.comparison.trainings import Entry, Setting, compare_entries
from d3hr.distillation.presets import distill_settings
from d3hr.evaluation.protocols import protocol_named
from d3hr.prior.families.dit import DiT
from d3hr.prior.networks import SCHEDULER_CONFIG, new_transformer
from d3hr.prior.presets import PRESETS
from d3hr.prior.schedules.schedule import Schedule, TrainableSchedule
from d3hr.progress import OnTerminal
from d3hr.seeds import seeded

DRAWS, IPC, BATCH, DROPOUT, EMA = range(3), 10, 128, 0.1, 0.999
FLOW_CONFIG = {
    "_class_name": "DPMSolverMultistepScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 1.0,
}
PROMPT = "a photo of the digit {name}"
SETS: dict[str, dict[str, Any]] = {
    "mixture": {"preset": "mixture"},
    "mixture, guidance 1": {"preset": "mixture", "denoising_guidance": 1.0},
    "gentle": {"preset": "gentle"},
}
GUIDED = {"mixture"}
"""Settings that need a null class."""


def dit(folder: Path, vae: Any, names: Sequence[str], config: dict[str, Any]) -> None:
    """Save an untrained DiT on the autoencoder's latents."""
    transformer = new_transformer(PRESETS["tiny"], (vae.config.latent_channels, 4), len(names))
    d3hr.Prior(DiT(transformer, names), vae, config).save_pretrained(folder)


def text_to_image(folder: Path, vae: Any) -> None:
    """Save an untrained Stable Diffusion pipeline with a small text encoder, which stays as it is drawn."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    words = folder.with_name(f"{folder.name}-tokenizer")
    words.mkdir(parents=True, exist_ok=True)
    characters = sorted({*PROMPT, *"0123456789"} - {" ", "{", "}"})
    tokens = ["<|startoftext|>", "<|endoftext|>", *characters, *(f"{character}</w>" for character in characters)]
    (words / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(words / "vocab.json"), str(words / "merges.txt"), unk_token="<|endoftext|>", model_max_length=32)
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=32, projection_dim=64, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip
    # As drawn, at a deviation of 0.02, one word is hardly told from another; a trained encoder tells them apart.
    encoder.get_input_embeddings().weight.data.mul_(50)
    unet = diffusers.UNet2DConditionModel(
        sample_size=4, in_channels=vae.config.latent_channels, out_channels=vae.config.latent_channels, cross_attention_dim=64,
        block_out_channels=(48, 96), layers_per_block=1, attention_head_dim=8, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    diffusers.StableDiffusionPipeline(
        vae, encoder, tokenizer, unet, diffusers.DDIMScheduler.from_config(SCHEDULER_CONFIG), None, None, requires_safety_checker=False
    ).save_pretrained(folder)


def pixels(folder: Path, classes: int | None) -> None:
    """Save an untrained U-Net on pixels, with a class embedding or without."""
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(48, 96), layers_per_block=1, norm_num_groups=8, num_class_embeds=classes,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=8,
    )  # fmt: skip
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler.from_config({**SCHEDULER_CONFIG, "_class_name": "DDPMScheduler"})).save_pretrained(
        folder
    )


def train(prior: d3hr.Prior, images: d3hr.ImageData, minutes: float, learning_rate: float) -> dict[str, float]:
    """Train the network of a prior in place, and leave the averaged weights in it; return steps and the last loss."""
    schedule, network = prior.schedule, prior.network
    assert isinstance(schedule, TrainableSchedule)
    conditions = list(prior.conditions(images.class_names).values())
    null = conditions[0].null
    tables = {
        name: torch.stack([*(condition.inputs[name] for condition in conditions), *([null[name]] if null else [])])
        for name in conditions[0].inputs
    }
    pictures, labels = images.gather(range(len(images)))
    latents = torch.cat([prior.encode(part) for part in pictures.split(256)])
    generator = torch.Generator().manual_seed(0)
    network.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.0)
    average = {name: value.detach().clone() for name, value in network.named_parameters()}
    began, steps, last = time.process_time(), 0, 0.0
    while (share := (time.process_time() - began) / (60 * minutes)) < 1:
        chosen = torch.randint(len(latents), (BATCH,), generator=generator)
        z, y = latents[chosen], labels[chosen]
        t, alpha, sigma = schedule.random_times(BATCH, generator, z.device)
        noise = torch.randn(z.shape, generator=generator)
        if null:
            y = torch.where(torch.rand(BATCH, generator=generator) < DROPOUT, len(conditions), y)
        alpha, sigma = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
        output = prior.denoiser(alpha * z + sigma * noise, t, {name: table[y] for name, table in tables.items()})
        loss = F.mse_loss(output, schedule.target(z, noise, alpha, sigma))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (steps + 1) / 100) * (1 + math.cos(math.pi * share)) / 2
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        steps, last = steps + 1, 0.99 * last + 0.01 * loss.item() if steps else loss.item()
        decay = min(EMA, (1 + steps) / (10 + steps))
        with torch.no_grad():
            for name, value in network.named_parameters():
                average[name].lerp_(value, 1 - decay)
    network.load_state_dict(average, strict=False)
    network.requires_grad_(False)
    return {"steps": steps, "loss": last, "parameters": sum(value.numel() for value in network.parameters())}


def fitted(folder: Path, untrained: Callable[[Path], None], images: d3hr.ImageData, minutes: float, rate: float) -> tuple[d3hr.Prior, Any]:
    """Return a trained prior of a family, and how it was trained; both are kept in a folder."""
    options: dict[str, Any] = {"prompt": PROMPT} if folder.name == "text" else {}
    if not (folder / "trained.json").is_file():
        start = folder.with_name(f"{folder.name}-untrained")
        shutil.rmtree(start, ignore_errors=True)
        with seeded(0):
            untrained(start)
        prior = d3hr.Prior.from_pretrained(start, **options)
        about = train(prior, images, minutes, rate)
        prior.save_pretrained(folder)
        (folder / "trained.json").write_text(json.dumps(about))
    return d3hr.Prior.from_pretrained(folder, **options), json.loads((folder / "trained.json").read_text())


def same_noise(schedule: Schedule, preset: str) -> int:
    """Return the level whose ratio of noise to signal is nearest to that of the preset's level on DiT's schedule."""
    from d3hr.prior.schedules.reading import read_schedule

    settings = distill_settings(preset)
    there = read_schedule(SCHEDULER_CONFIG).points(settings.steps)[settings.statistics_level]
    wanted = there.sigma / there.alpha
    points = schedule.points(settings.steps)[:-1]
    return min(range(len(points)), key=lambda level: abs(points[level].sigma / points[level].alpha - wanted))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="CPU minutes that each network is trained")
    parser.add_argument("--work", type=Path, default=WORK / "families", help="folder for everything that is finished")
    options = parser.parse_args(arguments)
    work, progress = options.work, OnTerminal()
    images, test = d3hr.load_images("digits"), d3hr.load_images("digits", split="test")
    vae = d3hr.fit_prior(images, work / "autoencoder", steps=1, progress=progress).vae
    names = images.class_names
    families: dict[str, tuple[Callable[[Path], None], float]] = {
        "dit": (lambda folder: dit(folder, vae, names, SCHEDULER_CONFIG), 2e-3),
        "flow": (lambda folder: dit(folder, vae, names, FLOW_CONFIG), 2e-3),
        "text": (lambda folder: text_to_image(folder, vae), 1e-3),
        "pixels": (lambda folder: pixels(folder, None), 1e-3),
        "pixels-classes": (lambda folder: pixels(folder, len(names)), 1e-3),
    }
    protocol = protocol_named("quick")
    figures: list[dict[str, Any]] = []

    def row(family: str, name: str, sets: list[d3hr.DistilledSet], **about: Any) -> None:
        entries = [Entry(distilled, [draw]) for distilled, draw in zip(sets, DRAWS, strict=True)]
        for result in compare_entries(entries, test, [Setting("convnet3", protocol)], folder=work / "trainings"):
            figures.append({**result.as_row(), "family": family, "sets": name, **about})
            print(f"{family:16s} {name:24s} {100 * result.accuracy_mean:.1f} ± {100 * result.accuracy_std:.1f}", flush=True)

    row(
        "real images",
        "random",
        [d3hr.random_real(images, work / "sets" / f"real{draw}", ipc=IPC, image_size=8, seed=draw) for draw in DRAWS],
    )
    for family, (untrained, rate) in families.items():
        prior, about = fitted(work / "priors" / family, untrained, images, options.minutes, rate)
        if family != "pixels":  # it knows no classes: what it draws has the label of none
            only = [
                d3hr.prior_only(prior, names, work / "sets" / f"{family}, prior only, {draw}", ipc=IPC, guidance_scale=1.0, seed=draw)
                for draw in DRAWS
            ]
            row(family, "prior only", only, **about)
        for name, settings in SETS.items():
            if name in GUIDED and family.startswith("pixels"):
                continue
            level = same_noise(prior.schedule, settings["preset"])
            place = work / "sets" / f"{family}, {name}"
            first = d3hr.distill(images, prior, f"{place}, 0", ipc=IPC, level=level, progress=progress, **settings)
            others = [d3hr.expand(first, prior, f"{place}, {draw}", ipc=IPC, seed=draw) for draw in DRAWS[1:]]
            row(family, name, [first, *others], level=level, **about)
    settings = {"protocol": protocol.model_dump(mode="json"), "draws": len(DRAWS), "minutes": options.minutes, "sets": SETS}
    record("families", settings, figures)


if __name__ == "__main__":
    main()
