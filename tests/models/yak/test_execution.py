"""The network is one graph, recomputed too; tuning and adapters fit it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdpo_exp.models.lora import adapters_off, merged
from sdpo_exp.models.tuning import FullTuning, LoraTuning
from sdpo_exp.models.yak import YakTransformer
from tests.models.yak.tiny import tiny_inputs, tiny_network


def step(network: YakTransformer, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    found = network(**inputs)
    found.square().mean().backward()
    grads = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    return found.detach(), grads


def same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> bool:
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=1e-7)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_whole_network_is_one_graph(checkpointing: bool) -> None:
    torch.compiler.reset()
    inputs = tiny_inputs(cond=(2, 2)) | {"txt_mask": torch.arange(5).expand(2, -1) < 4}
    plain = step(tiny_network(depth_single_blocks=1), inputs)
    network = tiny_network(depth_single_blocks=1)
    if checkpointing:
        network.enable_gradient_checkpointing()
    network.compile(backend="aot_eager", fullgraph=True)
    assert same(step(network, inputs), plain)


def test_tuning_knows_the_network() -> None:
    network = tiny_network()
    tuning = FullTuning(gradient_checkpointing=True, compile=True, compile_backend="eager")
    tuning.apply(network)
    assert network.is_gradient_checkpointing
    names = list(network.state_dict())
    tuning.prepare(network)
    assert list(network.state_dict()) == names


def test_adapters_fit_every_layer_of_an_attention() -> None:
    network, inputs = tiny_network(), tiny_inputs(cond=(2, 2))
    base = network(**inputs).detach()
    targets = r".*(attn\.(qkv|proj)|self_attn_(qkv|proj)|linear1|linear2)"
    LoraTuning(rank=2, targets=targets, gradient_checkpointing=True).apply(network)
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    # Two in each of two refiner blocks, six in the double block, two in each of two single ones.
    assert len(trained) == 2 * (2 * 2 + 6 + 2 * 2)
    assert torch.equal(network(**inputs), base)
    with torch.no_grad():
        for i, p in enumerate(trained.values()):
            p.normal_(std=0.1, generator=torch.Generator().manual_seed(i))
    adapted = network(**inputs)
    adapted.square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in trained.values())
    with adapters_off(network), torch.no_grad():
        assert torch.equal(network(**inputs), base)
    found = adapted.detach()
    assert float((found - base).abs().max()) > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(merged(network)(**inputs), found, rtol=0, atol=1e-5)
