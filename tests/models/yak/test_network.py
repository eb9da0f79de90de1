"""What the network computes: against a second writing of it, masked, edited, recomputed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdpo_exp.models.yak import YakTransformer
from sdpo_exp.models.yak.blocks import DoubleBlock
from sdpo_exp.models.yak.latents import grid_ids
from sdpo_exp.models.yak.layers import QueryKeyNorm, sinusoid
from sdpo_exp.models.yak.rope import rotate, rotation
from tests.models.yak.naive import Naive, turned
from tests.models.yak.tiny import tiny_inputs, tiny_network

# Of outputs of size one in float32, through four blocks.
CLOSE = {"rtol": 0, "atol": 5e-6}


def naive_of(network: YakTransformer) -> Naive:
    weights = {name: t.double().numpy() for name, t in network.state_dict().items()}
    return Naive(weights, network.config.num_heads, network.config.axes_dim)


def array(tensor: Tensor) -> Any:
    return tensor.detach().double().numpy()


def test_rotations_are_those_of_complex_numbers() -> None:
    x = torch.randn(1, 2, 12, 16, generator=torch.Generator().manual_seed(0))
    ids = grid_ids(3, 4, 1, axis0=1.0) * 7
    found = rotate(x, rotation(ids, (4, 6, 6), 100.0))
    for head in range(2):
        for token in range(12):
            by_hand = turned(array(x[0, head, token]), array(ids[0, token]), (4, 6, 6), 100.0)
            np.testing.assert_allclose(array(found[0, head, token]), by_hand, atol=1e-6)


def test_a_rotation_keeps_the_dtype_and_far_positions_exact() -> None:
    x = torch.ones(1, 1, 1, 16, dtype=torch.bfloat16)
    ids = torch.tensor([[[0.0, 1023.0, 1021.0]]])
    turn = rotation(ids, (4, 6, 6), 10_000)
    assert rotate(x, turn).dtype == torch.bfloat16
    assert float(turn.cos[0, 0, 0, 2]) == pytest.approx(np.cos(1023.0), abs=1e-7)


def test_time_s_waves_are_cosines_then_sines_of_128_frequencies() -> None:
    found = array(sinusoid(torch.tensor([0.0, 0.25, 1.0])))
    for row, t in zip(found, (0.0, 0.25, 1.0), strict=True):
        angles = 1000 * t * 10_000.0 ** (-np.arange(128) / 128)
        np.testing.assert_allclose(row[:128], np.cos(angles), atol=3e-4)
        np.testing.assert_allclose(row[128:], np.sin(angles), atol=3e-4)


def test_queries_are_normalised_in_float32_and_scaled_after_the_cast() -> None:
    norm = QueryKeyNorm(16)
    with torch.no_grad():
        norm.query_norm.scale.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, 2, 50, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    q, k, v = norm(x, x, x)
    assert q.dtype == k.dtype == v.dtype == torch.bfloat16
    inverse = 1 / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    flat = (x.double() * inverse).bfloat16()
    # Near a tie of two bfloat16 the float32 and the float64 value may be rounded apart.
    agree = (k == flat).float().mean()
    assert float(agree) > 0.999
    assert float((q == (flat * norm.query_norm.scale).bfloat16()).float().mean()) > 0.999


def test_one_double_block_is_the_second_writing_s() -> None:
    network = tiny_network(1)
    block: Any = network.double_blocks[0]
    assert isinstance(block, DoubleBlock)
    draw = torch.Generator().manual_seed(2)
    img, txt, vec = (torch.randn(*s, generator=draw) for s in ((1, 12, 32), (1, 5, 32), (1, 32)))
    ids = torch.cat((torch.zeros(1, 5, 3), grid_ids(3, 4, 1)), dim=1)
    turn = rotation(ids, (4, 6, 6), 10_000)
    found_img, found_txt = block(img, txt, vec, turn)
    by_hand = naive_of(network).double(
        "double_blocks.0", array(img[0]), array(txt[0]), array(vec[0]), array(ids[0])
    )
    np.testing.assert_allclose(array(found_img[0]), by_hand[0], **CLOSE)
    np.testing.assert_allclose(array(found_txt[0]), by_hand[1], **CLOSE)


def test_one_single_block_is_the_second_writing_s() -> None:
    network = tiny_network(1)
    draw = torch.Generator().manual_seed(2)
    x, vec = torch.randn(1, 17, 32, generator=draw), 3 * torch.randn(1, 32, generator=draw)
    ids = torch.cat((torch.zeros(1, 5, 3), grid_ids(3, 4, 1)), dim=1)
    found = network.single_blocks[1](x, vec, rotation(ids, (4, 6, 6), 10_000))
    by_hand = naive_of(network).single("single_blocks.1", array(x[0]), array(vec[0]), array(ids[0]))
    np.testing.assert_allclose(array(found[0]), by_hand, **CLOSE)


@pytest.mark.parametrize("cond", [None, (2, 3)])
def test_the_whole_network_is_the_second_writing_s(cond: tuple[int, int] | None) -> None:
    network, inputs = tiny_network(3), tiny_inputs(3, batch=2, cond=cond)
    # Late times: of 1000 t near 1000, float32 knows the angle to 6e-5 only.
    inputs["timesteps"] = torch.tensor([0.001, 0.01])
    found = network(**inputs)
    for row in range(2):
        img, ids = inputs["img"][row], inputs["img_ids"][row]
        if cond is not None:
            img = torch.cat((img, inputs["cond_img"][row]))
            ids = torch.cat((ids, inputs["cond_img_ids"][row]))
        by_hand = naive_of(network).forward(
            array(img), array(ids), array(inputs["txt"][row]), float(inputs["timesteps"][row]), 1, 2
        )
        np.testing.assert_allclose(array(found[row]), by_hand[:12], **CLOSE)


@pytest.mark.parametrize("cond", [None, (2, 3)])
def test_rows_of_a_masked_batch_are_the_unpadded_ones(cond: tuple[int, int] | None) -> None:
    network, inputs = tiny_network(), tiny_inputs(batch=3, length=6, cond=cond)
    lengths = [6, 1, 4]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    # What is no text must not matter, whatever it is.
    padded = inputs["txt"].masked_fill(~mask[..., None], float("nan"))
    found = network(**{**inputs, "txt": padded}, txt_mask=mask)
    for row, length in enumerate(lengths):
        single = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
        single["txt"], single["txt_ids"] = single["txt"][:, :length], single["txt_ids"][:, :length]
        torch.testing.assert_close(found[row : row + 1], network(**single), rtol=0, atol=1e-6)
    unmasked = network(**inputs)
    assert float((found - unmasked).detach()[1:].abs().amax((1, 2)).min()) > 1e-3


def test_a_mask_of_true_changes_nothing_and_text_may_stand_anywhere() -> None:
    network, inputs = tiny_network(), tiny_inputs()
    everywhere = torch.ones(2, 5, dtype=torch.bool)
    plain = network(**inputs)
    torch.testing.assert_close(network(**inputs, txt_mask=everywhere), plain, rtol=0, atol=1e-6)
    wide = {**inputs, "txt": torch.cat((torch.ones(2, 3, 64), inputs["txt"]), dim=1)}
    wide["txt_ids"] = torch.zeros(2, 8, 3)
    late = (torch.arange(8) >= 3).expand(2, -1)
    torch.testing.assert_close(network(**wide, txt_mask=late), plain, rtol=0, atol=1e-6)


def test_a_condition_image_is_seen_and_cut_off() -> None:
    network = tiny_network()
    inputs = tiny_inputs(cond=(2, 5))
    plain = network(**{k: v for k, v in inputs.items() if not k.startswith("cond")})
    edited = network(**inputs)
    assert edited.shape == plain.shape == (2, 12, 16)
    other = network(**{**inputs, "cond_img": -inputs["cond_img"]})
    as_target = network(**{**inputs, "cond_img_ids": grid_ids(2, 5, 2)})
    for one in (plain, other, as_target):
        assert float((edited - one).detach().abs().max()) > 1e-3


def test_conditions_that_lack_something_are_refused() -> None:
    inputs = tiny_inputs(cond=(2, 2))
    del inputs["cond_img_ids"]
    with pytest.raises(ValueError, match="cond_img needs cond_img_ids"):
        tiny_network()(**inputs)
    with pytest.raises(ValueError, match="needs a guidance scale"):
        tiny_network(guidance_embed=True)(**tiny_inputs())


def test_a_guidance_scale_is_seen_where_there_is_one() -> None:
    network, inputs = tiny_network(guidance_embed=True), tiny_inputs()
    one, two = (network(**inputs, guidance=torch.full((2,), g)) for g in (1.0, 3.5))
    assert float((one - two).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("length", [1, 40])
def test_every_parameter_has_a_gradient(length: int) -> None:
    network = tiny_network()
    network(**tiny_inputs(length=length)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def gradients(network: YakTransformer, **more: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    network(**tiny_inputs(cond=(2, 2)), **more).square().mean().backward()
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("masked", [False, True])
def test_checkpointing_gives_the_same_gradients(masked: bool) -> None:
    network = tiny_network()
    more = {"txt_mask": torch.arange(5).expand(2, -1) < 4} if masked else {}
    plain = gradients(network, **more)
    network.enable_gradient_checkpointing()
    assert network.is_gradient_checkpointing
    recomputed = gradients(network, **more)
    assert plain.keys() == recomputed.keys() == dict(network.named_parameters()).keys()
    for name, gradient in plain.items():
        assert torch.equal(gradient, recomputed[name]), name
    network.disable_gradient_checkpointing()
    assert not network.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("training", "grad", "passes"), [(True, True, 2), (True, False, 1), (False, True, 2)]
)
def test_blocks_run_twice_where_there_is_a_backward_pass_only(
    training: bool, grad: bool, passes: int
) -> None:
    network = tiny_network().train(training)
    network.enable_gradient_checkpointing()
    blocks = [*network.txt_in.blocks, *network.double_blocks, *network.single_blocks]
    runs = dict.fromkeys(blocks, 0)
    assert len(runs) == 2 + 1 + 2

    def count(block: Any, _: Any) -> None:
        runs[block] += 1

    for block in runs:
        block.register_forward_pre_hook(count)
    with torch.set_grad_enabled(grad):
        loss = network(**tiny_inputs()).square().mean()
    if grad:
        loss.backward()
    assert set(runs.values()) == {passes}


@pytest.mark.parametrize("mode", ["autocast", "weights"])
def test_half_precision_stays_close(mode: str) -> None:
    network, inputs = tiny_network(), tiny_inputs(cond=(2, 2))
    exact = network(**inputs)
    if mode == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            found = network(**inputs)
    else:
        half = {k: inputs[k].bfloat16() for k in ("img", "txt", "cond_img")}
        found = network.bfloat16()(**{**inputs, **half})
        assert found.dtype == torch.bfloat16
    exact = exact.detach()
    assert float((found.detach().float() - exact).square().mean().sqrt()) < 0.03 * float(
        exact.std()
    )
