"""Sizes are the released ones, read as the release reads them, and checked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdpo_exp.models.yak import YakConfig, YakTransformer
from tests.models.yak.tiny import TINY


def test_keys_that_are_absent_have_the_defaults_of_the_released_class() -> None:
    read = YakConfig.from_dict({})
    assert (read.context_in_dim, read.timestep_shift) == (3072, False)
    released = {"context_in_dim": 4096, "timestep_shift": True}
    assert YakConfig.from_dict(released) == YakConfig()


def test_keys_of_no_effect_and_unknown_ones_are_ignored() -> None:
    more = TINY | {"checkpoint": True, "txt_type": "other", "vae_config": {}, "new": 1}
    assert YakConfig.from_dict(more) == YakConfig.from_dict(TINY)
    assert YakConfig.from_dict(TINY).axes_dim == (4, 6, 6)
    assert hash(YakConfig.from_dict(TINY))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axes_dim": (4, 6, 8)}, "must sum to the head's size"),
        ({"axes_dim": (5, 5, 6)}, "three even sizes"),
        ({"axes_dim": (8, 8)}, "three even sizes"),
        ({"vec_in_dim": 16}, "vec_in_dim 16 must equal hidden_size 32"),
        ({"num_heads": 3}, "not a multiple of 2 x num_heads"),
    ],
)
def test_sizes_that_do_not_fit_are_told(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        YakConfig.from_dict(TINY | changes)


def block_sizes(network: YakTransformer, start: str) -> int:
    return sum(p.numel() for name, p in network.named_parameters() if name.startswith(start))


def test_the_full_size_has_the_released_parameters() -> None:
    with torch.device("meta"):
        network = YakTransformer()
    assert len(network.state_dict()) == 325
    assert sum(p.numel() for p in network.parameters()) == 1_127_227_408
    assert list(network.buffers()) == []
    assert block_sizes(network, "txt_in.") == 81_054_720
    for i in range(6):
        assert block_sizes(network, f"double_blocks.{i}.") == 101_507_328
    for i in range(12):
        assert block_sizes(network, f"single_blocks.{i}.") == 35_406_592


def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {f"{name}.weight": (outputs, inputs)}
    return found | ({f"{name}.bias": (outputs,)} if bias else {})


def released_shapes(config: YakConfig) -> dict[str, tuple[int, ...]]:
    """The table of the released tensors, written out."""
    d, c, m = config.hidden_size, config.context_in_dim, int(config.mlp_ratio * config.hidden_size)
    h = d // config.num_heads
    shapes = linear("img_in", d, config.in_channels)
    for name, inputs in (("time_in", 256), ("vector_in", config.vec_in_dim)):
        shapes |= linear(f"{name}.in_layer", d, inputs) | linear(f"{name}.out_layer", d, d)
    if config.guidance_embed:
        shapes |= linear("guidance_in.in_layer", d, 256) | linear("guidance_in.out_layer", d, d)
    shapes |= {"txt_in.cls_token": (1, 1, d)} | linear("txt_in.input_embedder", d, c)
    shapes |= linear("txt_in.c_embedder.linear_1", d, c)
    shapes |= linear("txt_in.c_embedder.linear_2", d, d)
    for i in range(2):
        block = f"txt_in.individual_token_refiner.blocks.{i}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": (d,), f"{block}.{norm}.bias": (d,)}
        shapes |= linear(f"{block}.self_attn_qkv", 3 * d, d)
        shapes |= linear(f"{block}.self_attn_proj", d, d)
        shapes |= linear(f"{block}.mlp.fc1", 4 * d, d) | linear(f"{block}.mlp.fc2", d, 4 * d)
        shapes |= linear(f"{block}.adaLN_modulation.1", 2 * d, d)
    for i in range(config.depth):
        block = f"double_blocks.{i}"
        shapes |= linear(f"{block}.img_mod.lin", 9 * d, d)
        shapes |= linear(f"{block}.txt_mod.lin", 6 * d, d)
        for name in ("img_attn", "img_self_attn", "txt_attn"):
            shapes |= linear(f"{block}.{name}.qkv", 3 * d, d, config.qkv_bias)
            shapes |= linear(f"{block}.{name}.proj", d, d)
            shapes |= {f"{block}.{name}.norm.{x}_norm.scale": (h,) for x in ("query", "key")}
        for name in ("img_mlp", "txt_mlp"):
            shapes |= linear(f"{block}.{name}.0", m, d) | linear(f"{block}.{name}.2", d, m)
    for i in range(config.depth_single_blocks):
        block = f"single_blocks.{i}"
        shapes |= linear(f"{block}.linear1", 3 * d + m, d) | linear(f"{block}.linear2", d, d + m)
        shapes |= {f"{block}.norm.{x}_norm.scale": (h,) for x in ("query", "key")}
        shapes |= linear(f"{block}.modulation.lin", 3 * d, d)
    shapes |= linear("final_layer.linear", config.out_channels, d)
    return shapes | linear("final_layer.adaLN_modulation.1", 2 * d, d)


@pytest.mark.parametrize(
    "config",
    [
        YakConfig(),
        YakConfig.from_dict(TINY),
        YakConfig.from_dict(TINY | {"qkv_bias": False, "guidance_embed": True, "mlp_ratio": 2.71}),
    ],
)
def test_names_and_shapes_are_the_released_ones(config: YakConfig) -> None:
    with torch.device("meta"):
        network = YakTransformer(config)
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert found == released_shapes(config)


def test_the_tiny_network_has_95_tensors() -> None:
    network = YakTransformer(YakConfig.from_dict(TINY))
    assert len(network.state_dict()) == 95
    assert sum(p.numel() for p in network.parameters()) == 109_616


def test_a_new_network_starts_as_the_original_does() -> None:
    torch.manual_seed(0)
    network = YakTransformer(YakConfig.from_dict(TINY))
    for name, parameter in network.named_parameters():
        if "txt_in" in name and "adaLN_modulation.1" in name:
            assert not parameter.any()
        elif name.endswith((".scale", "norm1.weight", "norm2.weight")):
            assert (parameter == 1).all()
        elif "norm" not in name:
            assert parameter.any(), name
    assert 0 < float(network.txt_in.cls_token.detach().abs().max()) < 1e-5
    bound = 1 / 32**0.5
    weight = network.double_blocks[0].img_mod.lin.weight.detach()
    assert 0.9 * bound < float(weight.abs().max()) <= bound
