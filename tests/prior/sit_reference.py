"""The transformer of SiT in float64 NumPy, from the papers (arXiv 2401.08740; blocks of arXiv 2212.09748, section 3.2, adaLN-Zero), and
checkpoints of random weights by the names of github.com/willisma/SiT."""

import math
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, np.dtype[np.float64]]
WIDTH, HEADS, PATCH, CHANNELS = 384, 6, 2, 4
"""Those of SiT-S/2, without which a checkpoint does not say how many attention heads it has."""


def positions(width: int, side: int) -> Array:
    """Sines and cosines of the column in the first half, of the row in the second (arXiv 2111.06377, as DiT takes it): [side^2, width]."""
    row, column = np.divmod(np.arange(side * side), side)
    omega = 10_000 ** -(np.arange(width // 4) / (width / 4))
    return np.concatenate([f(np.outer(place, omega)) for place in (column, row) for f in (np.sin, np.cos)], axis=1)


def random_checkpoint(*, blocks: int = 1, classes: int = 3, side: int = 4, width: int = WIDTH) -> dict[str, torch.Tensor]:
    """Weights by SiT's names, for latents [4, side, side]; output with a second half, as SiT's has."""
    d, features = width, PATCH * PATCH * CHANNELS
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj": (d, CHANNELS, PATCH, PATCH),
        "t_embedder.mlp.0": (d, 256),
        "t_embedder.mlp.2": (d, d),
        "final_layer.linear": (2 * features, d),
        "final_layer.adaLN_modulation.1": (2 * d, d),
    }
    for block in range(blocks):
        for name, outputs, inputs in (("attn.qkv", 3 * d, d), ("attn.proj", d, d), ("mlp.fc1", 4 * d, d), ("mlp.fc2", d, 4 * d)):
            shapes[f"blocks.{block}.{name}"] = (outputs, inputs)
        shapes[f"blocks.{block}.adaLN_modulation.1"] = (6 * d, d)
    generator = torch.Generator().manual_seed(0)
    weights = {"y_embedder.embedding_table.weight": 0.5 * torch.randn(classes + 1, d, generator=generator)}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        weights[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return {**weights, "pos_embed": torch.from_numpy(positions(d, side // PATCH)).float()[None]}


def velocity(weights: dict[str, torch.Tensor], x: Array, t: Array, y: Array, heads: int = HEADS) -> Array:
    """Return the velocity [N, 4, h, w] of latents x [N, 4, h, w] at times t [N] from 0, noise, to 1, data, for rows y [N]."""
    w = {name: value.double().numpy() for name, value in weights.items()}

    def linear(name: str, a: Array) -> Array:
        return a @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def silu(a: Array) -> Array:
        return a / (1 + np.exp(-a))

    def gelu(a: Array) -> Array:
        return 0.5 * a * (1 + np.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))

    def modulated(a: Array, shift: Array, scale: Array) -> Array:
        normal = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-6)
        return normal * (1 + scale[:, None]) + shift[:, None]

    def attention(name: str, a: Array) -> Array:
        n, tokens, width = a.shape
        q, k, v = (part.reshape(n, tokens, heads, -1).transpose(0, 2, 1, 3) for part in np.split(linear(f"{name}.qkv", a), 3, axis=-1))
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(width / heads)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ v
        return linear(f"{name}.proj", mixed.transpose(0, 2, 1, 3).reshape(n, tokens, width))

    n, _, side, _ = x.shape
    grid, p = side // PATCH, PATCH
    patches = x.reshape(n, CHANNELS, grid, p, grid, p).transpose(0, 2, 4, 1, 3, 5).reshape(n, grid * grid, CHANNELS * p * p)
    kernel = w["x_embedder.proj.weight"].reshape(len(w["x_embedder.proj.weight"]), -1)
    tokens = patches @ kernel.T + w["x_embedder.proj.bias"] + positions(len(kernel), grid)
    angles = t[:, None] * np.exp(-math.log(10_000) * np.arange(128) / 128)
    time = linear("t_embedder.mlp.2", silu(linear("t_embedder.mlp.0", np.concatenate([np.cos(angles), np.sin(angles)], axis=1))))
    given = silu(time + w["y_embedder.embedding_table.weight"][y])
    for block in range(sum(name.endswith("attn.qkv.weight") for name in w)):
        name = f"blocks.{block}"
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = np.split(linear(f"{name}.adaLN_modulation.1", given), 6, axis=1)
        tokens = tokens + gate_a[:, None] * attention(f"{name}.attn", modulated(tokens, shift_a, scale_a))
        inner = gelu(linear(f"{name}.mlp.fc1", modulated(tokens, shift_m, scale_m)))
        tokens = tokens + gate_m[:, None] * linear(f"{name}.mlp.fc2", inner)
    shift, scale = np.split(linear("final_layer.adaLN_modulation.1", given), 2, axis=1)
    out = linear("final_layer.linear", modulated(tokens, shift, scale)).reshape(n, grid, grid, p, p, 2 * CHANNELS)
    return out.transpose(0, 5, 1, 3, 2, 4).reshape(n, 2 * CHANNELS, side, side)[:, :CHANNELS]
