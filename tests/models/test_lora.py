"""Adapters in any denoiser: off is the base to the bit, merged is what was trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import set_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from sdpo_exp.errors import UserError
from sdpo_exp.models.lora import (
    adapter_config,
    adapter_state,
    adapters_off,
    add_adapters,
    has_adapters,
    merged,
)
from tests.unet import inputs, move_adapters, small_unet


class Plain(nn.Module):
    """No diffusers model: peft is injected by hand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 3)])

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Any:
        hidden = self.first(sample).movedim(1, -1)
        return (self.blocks[1](torch.tanh(self.blocks[0](hidden))),)


CASES = {
    "diffusers": (small_unet, ["to_q", "to_k", "to_v", "to_out.0"]),
    "injected": (Plain, ["first", "blocks.0"]),
}


@pytest.fixture(params=CASES)
def base_and_adapted(request: Any) -> tuple[nn.Module, nn.Module]:
    build, targets = CASES[request.param]
    base = build().requires_grad_(False)
    adapted = copy.deepcopy(base)
    add_adapters(adapted, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    return base, adapted


@torch.no_grad()
def output(network: nn.Module) -> Tensor:
    return network(**inputs())[0]


def test_new_adapters_change_nothing(base_and_adapted: Any) -> None:
    base, adapted = base_and_adapted
    assert torch.equal(output(base), output(adapted))
    assert has_adapters(adapted)
    assert not has_adapters(base)


def test_off_is_the_base_and_on_again_is_the_adapted(base_and_adapted: Any) -> None:
    base, adapted = base_and_adapted
    before = output(move_adapters(adapted))
    assert not torch.allclose(before, output(base))
    with adapters_off(adapted):
        assert torch.equal(output(adapted), output(base))
    assert torch.equal(output(adapted), before)


def test_what_was_trained_is_trained_again_after_a_failure_too(base_and_adapted: Any) -> None:
    _, adapted = base_and_adapted
    frozen_by_hand = next(n for n, _ in adapted.named_parameters() if "lora_A" in n)
    adapted.get_parameter(frozen_by_hand).requires_grad_(False)
    before = {n: p.requires_grad for n, p in adapted.named_parameters()}
    assert 0 < sum(before.values()) < len(before)
    with adapters_off(adapted):
        assert not any(p.requires_grad for p in adapted.parameters())
    assert {n: p.requires_grad for n, p in adapted.named_parameters()} == before
    with pytest.raises(KeyError), adapters_off(adapted):
        raise KeyError
    assert {n: p.requires_grad for n, p in adapted.named_parameters()} == before
    assert torch.equal(output(adapted), output(move_adapters(adapted, 0.0)))


def test_merged_is_a_plain_model_with_the_adapted_output(base_and_adapted: Any) -> None:
    base, adapted = base_and_adapted
    before = output(move_adapters(adapted))
    plain = merged(adapted)
    assert (output(plain) - before).abs().max() < 1e-5
    assert (output(plain) - output(base)).abs().max() > 1e-3
    assert plain.state_dict().keys() == base.state_dict().keys()
    assert not has_adapters(plain)
    assert has_adapters(adapted)
    assert torch.equal(output(adapted), before)


def test_a_model_without_adapters_is_its_own_merger() -> None:
    base = small_unet()
    assert merged(base) is base


def test_merging_keeps_updates_that_a_half_precision_base_would_round_away() -> None:
    adapted = nn.Module.to(small_unet(), torch.bfloat16).requires_grad_(False)
    add_adapters(adapted, LoraConfig(r=4, lora_alpha=4, target_modules=["to_q"]))
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    base = adapted.get_parameter(f"{name}.base_layer.weight").float()
    layer: Any = adapted.get_submodule(name)
    with torch.no_grad():
        layer.lora_B["default"].weight.fill_(1e-5)
    update = layer.lora_B["default"].weight.float() @ layer.lora_A["default"].weight.float()
    rounded = (base + update).to(torch.bfloat16).float()
    assert (rounded == base).float().mean() > 0.9
    weight = merged(adapted).get_parameter(f"{name}.weight")
    assert weight.dtype == torch.float32
    assert torch.allclose(weight, base + update, atol=0, rtol=1e-6)
    assert (weight == base).float().mean() < 0.1


def test_a_merged_diffusers_model_is_saved_as_an_ordinary_one(tmp_path: Path) -> None:
    adapted = small_unet().requires_grad_(False)
    add_adapters(adapted, LoraConfig(r=4, target_modules=["to_q", "to_v"]))
    before = output(move_adapters(adapted).eval())
    merged(adapted).save_pretrained(tmp_path)
    loaded, info = UNet2DConditionModel.from_pretrained(
        tmp_path, output_loading_info=True, low_cpu_mem_usage=False
    )
    assert not any(info.values())
    assert (output(loaded) - before).abs().max() < 1e-5


def test_state_and_configuration_rebuild_the_adapter(base_and_adapted: Any) -> None:
    base, adapted = base_and_adapted
    before = output(move_adapters(adapted))
    add_adapters(base, adapter_config(adapted))  # alpha / rank is 2: forgotten, it would show
    set_peft_model_state_dict(base, adapter_state(adapted))
    assert torch.equal(output(base), before)
    assert all("lora_" in name for name in adapter_state(adapted))


def test_adapters_of_channels_last_convolutions_are_saved(tmp_path: Path) -> None:
    adapted = small_unet()
    add_adapters(adapted, LoraConfig(r=4, target_modules=["conv1", "to_q"]))
    torch.nn.Module.to(adapted, memory_format=torch.channels_last)
    assert any(not p.is_contiguous() for p in adapted.parameters() if p.requires_grad)
    save_file(adapter_state(adapted), tmp_path / "adapters.safetensors")


@pytest.mark.parametrize("ask", [adapter_state, adapter_config])
def test_a_model_without_adapters_has_none_to_give(ask: Any) -> None:
    with pytest.raises(ValueError, match="UNet2DConditionModel has no adapters"):
        ask(small_unet())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["to_query"], "no module of UNet2DConditionModel matches to_query"),
        (["to_q", "tok"], "matches tok. "),
        (".*attn9.*", r"matches \.\*attn9"),
        ("(", "not a regular expression"),
        (["norm1"], "LayerNorm"),
    ],
    ids=str,
)
def test_targets_that_do_not_fit_are_told(targets: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        add_adapters(small_unet(), LoraConfig(r=4, target_modules=targets))


def test_the_complaint_names_modules_that_there_are() -> None:
    unet = small_unet()
    with pytest.raises(UserError, match="matches query") as caught:
        add_adapters(unet, LoraConfig(r=4, target_modules=["query"]))
    named = str(caught.value).split("are named like ")[1].split(";")[0].split(", ")
    assert len(named) >= 4
    assert {name.split(".")[-1] for name in named} >= {"to_q", "to_k", "to_v"}
    for name in named:
        unet.get_submodule(name)
