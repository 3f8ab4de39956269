"""The method's numerical path in plain NumPy, written from its formulas apart from the package, in float64.

Two roundings to float32 are kept because diffusers makes them whatever the precision of the network: the position table and the
sinusoids of the timestep.

Legend: N latents, C h w latent axes, P side of a patch, S patches along a side, L = S*S patches, E width, A heads, F features of a head,
D = C*h*w dimensions, K latents in a group, M groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Noise = Callable[[Array, int], Array]
"""Gives the noise [N, C, h, w] in latents [N, C, h, w] at a timestep."""

TIME_FEATURES = 256
LARGEST_PERIOD = 10_000.0
ADAPTIVE_NORM_EPS = 1e-6
MOST_ITERATIONS = 1000


@dataclass(frozen=True)
class DiT:
    """A diffusion transformer (arXiv 2212.09748): float64 weights by diffusers' names, and diffusers' configuration."""

    weights: Mapping[str, Array]
    config: Mapping[str, Any]

    def linear(self, name: str, x: Array) -> Array:
        """Return W x + b over the last axis."""
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]


def silu(x: Array) -> Array:
    """Return x / (1 + e^-x)."""
    return x / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    """Return the tanh approximation of x Phi(x) (arXiv 1606.08415, section 2)."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x * x * x)))


def softmax(x: Array) -> Array:
    """Return e^x / sum e^x over the last axis."""
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def layer_norm(x: Array, eps: float) -> Array:
    """Return x with mean 0 and (biased) variance 1 over the last axis."""
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
    """Return x (1 + scale) + shift, of x [N, L, E] with a shift and scale [N, E] for each latent."""
    return x * (1 + scale[:, None]) + shift[:, None]


def position_table(side: int, width: int) -> Array:
    """Return [L, E], patches row by row: a quarter each of sin(column w_i), cos(column w_i), sin(row w_i), cos(row w_i)."""
    frequencies = LARGEST_PERIOD ** (-np.arange(width // 4) / (width // 4))
    rows, columns = np.divmod(np.arange(side * side), side)
    table = [wave(np.outer(place, frequencies)) for place in (columns, rows) for wave in (np.sin, np.cos)]
    return np.concatenate(table, axis=1).astype(np.float32).astype(np.float64)


def timestep_sinusoids(timestep: int) -> Array:
    """Return [256]: cos(t w_i), then sin(t w_i), with w_i falling from 1 to 1/10000, both ends included."""
    half = TIME_FEATURES // 2
    # In float32 as diffusers has it: at t = 1000 one unit in the last place of a frequency turns the phase by 6e-5. NumPy's own
    # float32 exponential is off by that unit in half of the frequencies, one rounded from float64 in hardly any.
    exponents = np.float32(-np.log(LARGEST_PERIOD)) * np.arange(half, dtype=np.float32) / np.float32(half - 1)
    phases = np.float32(timestep) * np.exp(exponents.astype(np.float64)).astype(np.float32)
    return np.concatenate([np.cos(phases), np.sin(phases)]).astype(np.float64)


def conditioning(model: DiT, block: int, timestep: int, labels: Labels) -> Array:
    """Return a block's embedding [N, E] of timestep and class, the null class being the last row of the table."""
    name = f"transformer_blocks.{block}.norm1.emb"
    time = silu(model.linear(f"{name}.timestep_embedder.linear_1", timestep_sinusoids(timestep)))
    return model.linear(f"{name}.timestep_embedder.linear_2", time) + model.weights[f"{name}.class_embedder.embedding_table.weight"][labels]


def embed_patches(model: DiT, z: Array) -> Array:
    """Return [N, L, E]: a convolution of z [N, C, h, w] whose kernel and stride are one patch, plus the position table."""
    kernel, bias = model.weights["pos_embed.proj.weight"], model.weights["pos_embed.proj.bias"]
    n, c, h, _ = z.shape
    p = model.config["patch_size"]
    side = h // p
    patches = z.reshape(n, c, side, p, side, p)
    embedded = np.einsum("ncipjq,ecpq->nije", patches, kernel).reshape(n, side * side, -1) + bias
    return embedded + position_table(side, embedded.shape[-1])


def attention(model: DiT, name: str, x: Array) -> Array:
    """Return softmax(q k^T / sqrt(F)) v of every head, joined and projected, of x [N, L, E]."""
    n, length, width = x.shape
    heads, features = model.config["num_attention_heads"], model.config["attention_head_dim"]
    q, k, v = (model.linear(f"{name}.to_{part}", x).reshape(n, length, heads, features) for part in "qkv")
    share = softmax(np.einsum("niaf,njaf->naij", q, k) / np.sqrt(features))
    return model.linear(f"{name}.to_out.0", np.einsum("naij,njaf->niaf", share, v).reshape(n, length, width))


def transformer_block(model: DiT, block: int, x: Array, timestep: int, labels: Labels) -> Array:
    """Return x [N, L, E] after gated attention and a gated two-layer network, both fed modulated norms (adaLN-zero)."""
    name = f"transformer_blocks.{block}"
    adaptation = model.linear(f"{name}.norm1.linear", silu(conditioning(model, block, timestep, labels)))
    shift_attention, scale_attention, gate_attention, shift_mlp, scale_mlp, gate_mlp = np.split(adaptation, 6, axis=1)
    attended = attention(model, f"{name}.attn1", modulate(layer_norm(x, ADAPTIVE_NORM_EPS), shift_attention, scale_attention))
    x = x + gate_attention[:, None] * attended
    hidden = gelu(model.linear(f"{name}.ff.net.0.proj", modulate(layer_norm(x, model.config["norm_eps"]), shift_mlp, scale_mlp)))
    return x + gate_mlp[:, None] * model.linear(f"{name}.ff.net.2", hidden)


def dit_forward(model: DiT, z: Array, timestep: int, labels: Labels) -> Array:
    """Return the network's output [N, out channels, h, w] for z [N, C, h, w]."""
    x = embed_patches(model, z)
    for block in range(model.config["num_layers"]):
        x = transformer_block(model, block, x, timestep, labels)
    shift, scale = np.split(model.linear("proj_out_1", silu(conditioning(model, 0, timestep, labels))), 2, axis=1)
    patches = model.linear("proj_out_2", modulate(layer_norm(x, ADAPTIVE_NORM_EPS), shift, scale))
    n, _, h, w = z.shape
    p, channels = model.config["patch_size"], model.config["out_channels"]
    return patches.reshape(n, h // p, w // p, p, p, channels).transpose(0, 5, 1, 3, 2, 4).reshape(n, channels, h, w)


def class_noise(model: DiT, z: Array, timestep: int, labels: Labels) -> Array:
    """Return the noise [N, C, h, w] in z: the first C output channels, as a learned variance follows it."""
    return dit_forward(model, z, timestep, labels)[:, : z.shape[1]]


def guided_noise(model: DiT, labels: Labels, guidance: float) -> Noise:
    """Return the prediction eps_null + g (eps_class - eps_null) (arXiv 2207.12598)."""
    null = np.full_like(labels, model.config["num_embeds_ada_norm"])

    def noise(z: Array, timestep: int) -> Array:
        eps_class, eps_null = (class_noise(model, z, timestep, chosen) for chosen in (labels, null))
        return eps_null + guidance * (eps_class - eps_null)

    return noise


def linear_alphas_cumprod(timesteps: int, beta_start: float, beta_end: float) -> Array:
    """Return [T]: the running product of 1 - beta, with beta evenly spaced."""
    return np.cumprod(1 - np.linspace(beta_start, beta_end, timesteps), dtype=np.float64)


def leading_grid(timesteps: int, steps: int) -> Labels:
    """Return the timesteps 0, T // steps, 2 (T // steps), ..."""
    return np.arange(steps) * (timesteps // steps)


def ddim_step(z: Array, eps: Array, alpha_from: float, alpha_to: float) -> Array:
    """Return sqrt(a') (z - sqrt(1 - a) eps) / sqrt(a) + sqrt(1 - a') eps (arXiv 2010.02502, eq. 12 with sigma = 0)."""
    return np.sqrt(alpha_to) * (z - np.sqrt(1 - alpha_from) * eps) / np.sqrt(alpha_from) + np.sqrt(1 - alpha_to) * eps


def invert(noise: Noise, alphas: Array, grid: Labels, z: Array, level: int) -> Array:
    """Carry z from level 0 to ``level``; the noise of the step k-1 -> k is that in z_{k-1} at t_k."""
    for k in range(1, level + 1):
        z = ddim_step(z, noise(z, grid[k]), alphas[grid[k - 1]], alphas[grid[k]])
    return z


def denoise(noise: Noise, alphas: Array, grid: Labels, z: Array, level: int) -> Array:
    """Carry z from ``level`` to level 0; the noise of the step k -> k-1 is that in z_k at t_k."""
    for k in range(level, 0, -1):
        z = ddim_step(z, noise(z, grid[k]), alphas[grid[k]], alphas[grid[k - 1]])
    return z


def invert_exactly(noise: Noise, alphas: Array, grid: Labels, z: Array, level: int, tolerance: float = 1e-13) -> Array:
    """Carry z from level 0 to ``level`` by steps whose noise is that in z_k, the end, found by substitution until nothing moves."""
    for k in range(1, level + 1):
        start, change, iterations = z, np.inf, 0
        while change > tolerance * np.linalg.norm(z):
            if iterations == MOST_ITERATIONS:
                raise ArithmeticError(f"substitution does not settle at level {k}: it still moves by {change:.1e}")
            moved = ddim_step(start, noise(z, grid[k]), alphas[grid[k - 1]], alphas[grid[k]])
            z, change, iterations = moved, float(np.linalg.norm(moved - z)), iterations + 1
    return z


def moments(latents: Array) -> tuple[Array, Array]:
    """Return mean [D] and unbiased std [D] of latents [N, D]."""
    mean = latents.sum(axis=0) / len(latents)
    return mean, np.sqrt(((latents - mean) ** 2).sum(axis=0) / (len(latents) - 1))


def skewness_per_dimension(group: Array) -> Array:
    """Return [D]: K / ((K-1)(K-2)) sum over the group [K, D] of ((x - mean) / std)^3."""
    mean, std = moments(group)
    k = len(group)
    return k / ((k - 1) * (k - 2)) * (((group - mean) / std) ** 3).sum(axis=0)


def skewness_per_image(group: Array) -> Array:
    """Return [K]: D / ((D-1)(D-2)) sum over the dimensions of ((x - mean) / std)^3, with the moments of the group [K, D]."""
    mean, std = moments(group)
    d = group.shape[1]
    return d / ((d - 1) * (d - 2)) * (((group - mean) / std) ** 3).sum(axis=1)


SKEWNESS = {"per_dimension": skewness_per_dimension, "per_image": skewness_per_image}


def group_score(group: Array, mean: Array, std: Array, weights: tuple[float, float, float], skewness: str) -> float:
    """Return w_mu |mean - mu| + w_sigma |std - sigma| + w_gamma |skewness| of a group [K, D]; what K does not define drops out."""
    score = weights[0] * np.linalg.norm(group.mean(axis=0) - mean)
    if len(group) >= 2:
        score += weights[1] * np.linalg.norm(moments(group)[1] - std)
    if len(group) >= 3:
        score += weights[2] * np.linalg.norm(SKEWNESS[skewness](group))
    return float(score)


def best_group(groups: Array, mean: Array, std: Array, weights: tuple[float, float, float], skewness: str) -> Array:
    """Return the group [K, D] of the lowest score among groups [M, K, D]."""
    return groups[np.argmin([group_score(group, mean, std, weights, skewness) for group in groups])]
