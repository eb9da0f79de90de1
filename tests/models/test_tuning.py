"""What is trained, and that neither checkpointing nor compilation changes a number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from sdpo_exp.errors import UserError
from sdpo_exp.models.reference import AdapterOff, FrozenReference
from sdpo_exp.models.tiny import TinyBackbone
from sdpo_exp.models.tuning import FullTuning, LoraTuning
from tests.harness import SmallDenoiser
from tests.unet import batch, gradients, move_adapters, pristine, small_unet, unet_module


def adapted(**options: Any) -> nn.Module:
    unet = small_unet()
    LoraTuning(**{"rank": 4, **options}).apply(unet)
    return unet


def trained(network: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in network.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("base_dtype", ["float32", "bfloat16", "float16"])
def test_only_float32_adapters_are_trained(base_dtype: Any) -> None:
    unet = adapted(base_dtype=base_dtype)
    assert {p.dtype for p in trained(unet).values()} == {torch.float32}
    frozen = [p for p in unet.parameters() if not p.requires_grad]
    assert {p.dtype for p in frozen} == {getattr(torch, base_dtype)}
    assert all("lora_" in name for name in trained(unet))
    assert unet.training


def test_the_default_targets_are_the_attention_s_four() -> None:
    unet = small_unet()
    ends = ("to_q", "to_k", "to_v", "to_out.0")
    attention = [m for n, m in unet.named_modules() if n.endswith(ends)]
    assert len(attention) == 4 * 2 * 4  # four each in two attentions of four blocks
    by_hand = sum(4 * (layer.in_features + layer.out_features) for layer in attention)
    assert sum(p.numel() for p in trained(adapted()).values()) == by_hand


def test_targets_may_be_a_list_or_a_regular_expression() -> None:
    listed = adapted(targets=["attn2.to_k", "attn2.to_v"])
    written = adapted(targets=r".*attn2\.to_[kv]")
    assert trained(listed).keys() == trained(written).keys()
    assert len(trained(listed)) == 2 * 2 * 4


def test_a_comes_from_the_seed_and_leaves_torch_s_stream_alone() -> None:
    unet = small_unet()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    LoraTuning(rank=4, seed=1).apply(unet)
    assert torch.equal(torch.rand(3), expected)
    first, again, other = trained(unet), trained(adapted(seed=1)), trained(adapted(seed=2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not torch.equal(first[n], other[n]) for n in first if "lora_A" in n)
    assert not any(first[name].any() for name in first if "lora_B" in name)


def test_alpha_over_rank_is_the_scale() -> None:
    layer: Any = adapted(rank=8, alpha=4.0).get_submodule(
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    )
    assert layer.scaling == {"default": 0.5}


def test_dropout_is_the_policy_s_alone() -> None:
    torch.manual_seed(0)
    module = unet_module(tuning=LoraTuning(rank=4, dropout=0.5), reference=AdapterOff())
    move_adapters(module.policy)
    noisy, cond = module.draw(batch())
    one, two = module.predict_policy(noisy, cond), module.predict_policy(noisy, cond)
    assert not torch.equal(one, two)
    assert torch.equal(module.predict_reference(noisy, cond), module.predict_reference(noisy, cond))


@pytest.mark.parametrize(
    ("tuning", "provider"),
    [(FullTuning, FrozenReference), (LoraTuning, FrozenReference), (LoraTuning, AdapterOff)],
)
def test_checkpointing_gives_the_same_gradients(tuning: Any, provider: Any) -> None:
    found = []
    for checkpointing in (False, True):
        module = unet_module(tuning=tuning(gradient_checkpointing=checkpointing))
        module.reference = provider()
        module.reference.attach(small_unet())
        with torch.no_grad():
            for i, p in enumerate(trained(module.policy).values()):
                p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
        assert module.policy.is_gradient_checkpointing == checkpointing
        found.append(gradients(module))
    plain, recomputed = found
    assert plain.keys() == recomputed.keys() == trained(module.policy).keys()
    for name in plain:
        assert torch.equal(plain[name], recomputed[name]), name
    assert sum(float(g.abs().sum()) for g in plain.values()) > 0


@pytest.mark.parametrize("tuning", [FullTuning(), LoraTuning(4, targets=["embed"])])
def test_a_model_that_cannot_recompute_says_so(tuning: Any) -> None:
    tuning.gradient_checkpointing = True
    with pytest.raises(UserError, match="gradient_checkpointing=true: SmallDenoiser cannot"):
        tuning.apply(SmallDenoiser())


def test_channels_last_is_a_matter_of_layout_only() -> None:
    unet, original = small_unet(), small_unet()
    FullTuning(channels_last=True).prepare(unet)
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    for name, parameter in original.named_parameters():
        assert torch.equal(unet.get_parameter(name), parameter)


@pytest.mark.slow
def test_compilation_is_in_place_and_makes_two_graphs() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    tuning = LoraTuning(rank=4, compile=True)
    tuning.compile_backend = counter  # type: ignore[assignment]
    torch._dynamo.reset()
    module = unet_module(tuning=tuning, reference=AdapterOff())
    eager = unet_module(tuning=LoraTuning(rank=4), reference=AdapterOff())
    assert module.state_dict().keys() == eager.state_dict().keys()
    for network in (module.policy, eager.policy):
        move_adapters(network, 0.02)
    frames = []
    for _ in range(3):
        compiled, expected = gradients(module), gradients(eager)
        assert compiled.keys() == expected.keys()
        for name in expected:
            assert (compiled[name] - expected[name]).abs().max() < 1e-5, name
        frames.append(counter.frame_count)
    assert frames == [2, 2, 2]  # adapters off without gradient, and on with; then never again
    torch._dynamo.reset()


@pytest.mark.parametrize("tuning", [FullTuning, LoraTuning])
def test_a_backend_that_torch_lacks_is_told(tuning: Any) -> None:
    with pytest.raises(UserError, match=r"compile_backend=fastest: torch has .*inductor"):
        tuning(compile=True, compile_backend="fastest").prepare(small_unet())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_tiny_model_exports_its_adapters_merged(tmp_path: Any, dtype: Any) -> None:
    backbone = TinyBackbone()
    base = pristine(backbone.denoiser)
    LoraTuning(rank=4, base_dtype=dtype).apply(backbone.denoiser)
    move_adapters(backbone.denoiser)
    backbone.save(tmp_path / "model")
    exported = TinyBackbone(str(tmp_path / "model"))
    noise = torch.randn(2, 12, 16, 16, generator=torch.Generator().manual_seed(0))
    options = {"num_inference_steps": 1, "latents": noise, "output_type": "pt"}
    prompts = ["a red circle", "a blue square"]
    ours = backbone.pipeline()(prompts, **options).images
    assert (exported.pipeline()(prompts, **options).images - ours).abs().max() < 1e-4
    assert (backbone.pipeline(base)(prompts, **options).images - ours).abs().max() > 1e-2
