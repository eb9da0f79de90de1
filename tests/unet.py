"""A small diffusers UNet on 3 x 8 x 8 images: the attention that the harness' model lacks."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from sdpo_exp.models.forward_process import VPProcess
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import Conditioning, Geometry, PairBatch, PairKey
from tests.harness import RandomPairs, small_module


def small_unet(seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )


class UNetBackbone:
    """Pixels are the latents; a prompt is four random states of its hash."""

    def __init__(self, seed: int = 0) -> None:
        self.denoiser = small_unet(seed)
        self.process = VPProcess(torch.linspace(0.9999, 0.001, 1000), "epsilon")

    def to(self, device: torch.device) -> None:
        del device

    def encode_images(self, pixels: Tensor, draw: Any) -> Tensor:
        return pixels

    def encode_prompts(self, prompts: Sequence[str], geometry: Any) -> Conditioning:
        seeds = [int(hashlib.sha256(p.encode()).hexdigest()[:8], 16) for p in prompts]
        rows = [torch.randn(4, 32, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return {"text": torch.stack(rows).float()}

    def denoise(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        dtype = network.get_parameter("conv_in.weight").dtype
        return network(x_t.to(dtype), t, encoder_hidden_states=cond["text"].to(dtype)).sample


def unet_module(**changes: Any) -> PreferenceModule:
    """`small_module` with the UNet in place of two convolutions."""
    return small_module(**{"backbone": UNetBackbone(), **changes})


def inputs(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Of two rows of the UNet."""
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(2, 3, 8, 8, generator=generator).to(dtype),
        "timestep": torch.tensor([10, 700]),
        "encoder_hidden_states": torch.randn(2, 4, 32, generator=generator).to(dtype),
    }


def batch(pairs: int = 2) -> PairBatch:
    """The first pairs of `RandomPairs`."""
    rows = [RandomPairs(pairs)[i] for i in range(pairs)]
    return PairBatch(
        winner=torch.stack([row.winner for row in rows]),
        loser=torch.stack([row.loser for row in rows]),
        prompts=[row.prompt for row in rows],
        keys=[PairKey(0, i, i) for i in range(pairs)],
        geometry=[Geometry(8, 8, 0, 0, 8, 8)] * pairs,
        skipped=[],
    )


def move_adapters(network: nn.Module, size: float = 0.05) -> nn.Module:
    """Give every B random values, as after some training; returns `network`."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter += size * torch.randn(parameter.shape, generator=generator)
    return network


def gradients(module: PreferenceModule) -> dict[str, Tensor]:
    """Of one training step, by name."""
    module.zero_grad()
    module.training_step(batch(), 0)["loss"].backward()
    return {n: p.grad.clone() for n, p in module.policy.named_parameters() if p.grad is not None}


def pristine(network: nn.Module) -> nn.Module:
    """A copy, to compare with later."""
    return copy.deepcopy(network)
