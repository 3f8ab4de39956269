"""Reads the weights of SiT (github.com/willisma/SiT) into diffusers' transformer, which has other names for the same tensors.

Legend: D width, C latent channels, p side of a patch.
"""

from __future__ import annotations

import argparse
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3hr.prior.repository import Repository

Weights = Mapping[str, Tensor]
"""Tensors by SiT's names."""

_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Width -> attention heads of SiT-S, B, L and XL (arXiv 2212.09748, table 1), which no tensor shows."""
_TABLE = "y_embedder.embedding_table.weight"


def read_checkpoint(repository: Repository) -> Weights:
    """Return the weights in a file: bare, or those of the moving average (``ema``) that SiT's training keeps next to others.

    Raises:
        PriorError: it is not such a file, would run code, or says that it was trained on another path or output.
    """
    file = repository.folder
    if file.stem.lower().startswith("dit"):
        raise repository.unusable("a file named after DiT, whose tensors have SiT's names; facebook/DiT-XL-2-256 is a DiT on the Hub")
    if file.suffix == ".safetensors":
        return _safetensors(file, repository)
    try:
        # The settings of a training are a Namespace; its class is allowed next to tensors, and nothing else is.
        with torch.serialization.safe_globals([argparse.Namespace]):
            mapped = zipfile.is_zipfile(file)
            content = torch.load(file, map_location="cpu", mmap=mapped, weights_only=True)
    except Exception as error:  # PyTorch's reader of tensors raises from many unrelated trees
        raise repository.unusable(f"no checkpoint of tensors only: {(str(error).strip() or repr(error)).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise repository.unusable(f"a checkpoint that holds a {type(content).__name__}")
    trained = vars(content["args"]) if isinstance(content.get("args"), argparse.Namespace) else {}
    for name, usable in (("model", "SiT"), ("path_type", "Linear"), ("prediction", "velocity")):
        if not str(trained.get(name, usable)).startswith(usable):
            raise repository.unusable(f"a checkpoint trained with {name} {trained[name]}, where d3hr can use {usable}")
    for key in ("ema", "model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def read_safetensors(repository: Repository) -> Weights:
    """Return the weights of the ``transformer`` of a repository."""
    repository.fetch("transformer")
    weights: dict[str, Tensor] = {}
    for file in sorted((repository.folder / "transformer").glob("*.safetensors")):
        weights |= _safetensors(file, repository)
    return weights


def _safetensors(file: Path, repository: Repository) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise repository.unusable(f"{file.name}: {error}") from error


def rows_of(weights: Weights) -> int:
    """Return the rows of the label table, that of the null class included."""
    return len(weights[_TABLE])


def to_diffusers(weights: Weights, repository: Repository, *, heads: int | None = None) -> Any:
    """Return a ``DiTTransformer2DModel`` (float32) with the weights; its shape follows from theirs.

    Args:
        heads: attention heads; by default those of the SiT of that width.

    Raises:
        PriorError: tensors are missing or not known, do not fit, or no SiT has that width.
    """
    from diffusers import DiTTransformer2DModel

    blocks = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    ours = dict(_names(blocks))
    missing, unknown = sorted(set(ours.values()) - set(weights)), sorted(set(weights) - set(ours.values()))
    if missing or unknown or not blocks:
        which = [f"{kind} {names[0]}" for kind, names in (("lacks", missing), ("has the unknown", unknown)) if names]
        raise repository.unusable(f"no weights of SiT: the transformer {' and '.join(which) or 'has no blocks'}")
    try:
        width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
        if heads is None and width not in _HEADS:
            raise ValueError(f"a SiT of width {width}; those of {', '.join(map(str, _HEADS))} have a known number of attention heads")
        heads = heads or _HEADS[width]
        network = DiTTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            in_channels=channels,
            out_channels=len(weights["final_layer.linear.weight"]) // patch**2,
            num_layers=blocks,
            sample_size=math.isqrt(weights["pos_embed"].shape[1]) * patch,
            patch_size=patch,
            num_embeds_ada_norm=rows_of(weights) - 1,
            norm_eps=1e-6,
        )
        network.load_state_dict(_renamed(weights, ours, width))
        if not torch.allclose(network.pos_embed.pos_embed, weights["pos_embed"].float(), atol=1e-2):
            raise ValueError("a SiT whose embedding of positions is another one")
    except (RuntimeError, ValueError) as error:
        raise repository.unusable(f"transformer: {str(error).strip().splitlines()[-1].strip()}") from error
    return network


def _renamed(weights: Weights, ours: Mapping[str, str], width: int) -> dict[str, Tensor]:
    """Return the tensors by diffusers' names; queries, keys and values are thirds of one tensor [3 D, ...]."""
    third = {"to_q": 0, "to_k": 1, "to_v": 2}
    renamed = {}
    for name, theirs in ours.items():
        if name != "pos_embed":
            part = third.get(name.split(".")[-2])
            value = weights[theirs].float()
            renamed[name] = value if part is None else value[part * width : (part + 1) * width]
    return renamed


def _names(blocks: int) -> Iterator[tuple[str, str]]:
    """Yield each name of diffusers with SiT's; a tensor of SiT that all blocks share has a copy in each."""
    yield "pos_embed", "pos_embed"
    for kind in ("weight", "bias"):
        yield f"pos_embed.proj.{kind}", f"x_embedder.proj.{kind}"
        yield f"proj_out_1.{kind}", f"final_layer.adaLN_modulation.1.{kind}"
        yield f"proj_out_2.{kind}", f"final_layer.linear.{kind}"
    for block in range(blocks):
        ours, theirs = f"transformer_blocks.{block}", f"blocks.{block}"
        yield f"{ours}.norm1.emb.class_embedder.embedding_table.weight", _TABLE
        for kind in ("weight", "bias"):
            yield f"{ours}.norm1.emb.timestep_embedder.linear_1.{kind}", f"t_embedder.mlp.0.{kind}"
            yield f"{ours}.norm1.emb.timestep_embedder.linear_2.{kind}", f"t_embedder.mlp.2.{kind}"
            yield f"{ours}.norm1.linear.{kind}", f"{theirs}.adaLN_modulation.1.{kind}"
            for part in "qkv":
                yield f"{ours}.attn1.to_{part}.{kind}", f"{theirs}.attn.qkv.{kind}"
            yield f"{ours}.attn1.to_out.0.{kind}", f"{theirs}.attn.proj.{kind}"
            yield f"{ours}.ff.net.0.proj.{kind}", f"{theirs}.mlp.fc1.{kind}"
            yield f"{ours}.ff.net.2.{kind}", f"{theirs}.mlp.fc2.{kind}"
