"""A tiny folder in the layout of Ovis-U1's release, with the two parts that are used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from sdpo_exp.models.yak import YakConfig, YakTransformer
from sdpo_exp.models.yak.latents import grid_ids, text_ids

TINY: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 32,
    "context_in_dim": 64,
    "hidden_size": 32,
    "mlp_ratio": 2,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 2,
    "axes_dim": [4, 6, 6],
    "theta": 10_000,
    "qkv_bias": True,
    "guidance_embed": False,
    "checkpoint": False,
    "txt_type": "refiner",
    "timestep_shift": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
}
TINY_VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [8, 16, 16, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "scaling_factor": 0.13025,
    "force_upcast": False,
}


def open_gates(network: YakTransformer) -> YakTransformer:
    """Random weights in the refiner's gates, which are closed in a new network."""
    with torch.no_grad():
        for block in network.txt_in.blocks:
            for parameter in block.adaLN_modulation.parameters():
                parameter.normal_(std=0.5)
    return network


def tiny_network(seed: int = 0, **changes: Any) -> YakTransformer:
    """A random network in training mode, its gates open; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_gates(YakTransformer(YakConfig.from_dict(TINY | changes)))


def tiny_inputs(
    seed: int = 0,
    batch: int = 2,
    length: int = 5,
    grid: tuple[int, int] = (3, 4),
    cond: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """Arguments of `YakTransformer.forward` for the tiny sizes."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    inputs = {
        "img": normal(batch, grid[0] * grid[1], 16),
        "img_ids": grid_ids(*grid, batch),
        "txt": normal(batch, length, 64),
        "txt_ids": text_ids(length, batch),
        "timesteps": torch.rand(batch, generator=draw),
    }
    if cond is not None:
        inputs["cond_img"] = normal(batch, cond[0] * cond[1], 16)
        inputs["cond_img_ids"] = grid_ids(*cond, batch, axis0=1.0)
    return inputs


def write_tiny_ovis(
    folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, sharded: bool = True
) -> None:
    """Write `config.json` and weights: three shards with an index, or one file.

    The second shard holds generator weights and, like no other, `vte.weight`, which is none of
    ours; the third holds the VAE alone.
    """
    network = tiny_network(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        vae = AutoencoderKL(**TINY_VAE)
        table = torch.randn(6, 8)
    backbone = _prefixed("visual_generator.backbone.", network.state_dict(), dtype)
    names = list(backbone)
    shards = [
        {name: backbone[name] for name in names[:40]},
        {name: backbone[name] for name in names[40:]} | {"vte.weight": table.to(dtype)},
        _prefixed("visual_generator.vae.", vae.state_dict(), dtype),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    generator = {"model_type": "yak", **TINY, "vae_config": TINY_VAE}
    config = {"model_type": "ovis_u1", "visual_generator_config": generator}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    if not sharded:
        together = {name: tensor for shard in shards for name, tensor in shard.items()}
        save_file(together, folder / "model.safetensors", {"format": "pt"})
        return
    files = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for file, shard in zip(files, shards, strict=True):
        save_file(shard, folder / file, {"format": "pt"})
    where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    size = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _prefixed(prefix: str, state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {prefix + name: tensor.to(dtype).contiguous() for name, tensor in state.items()}
