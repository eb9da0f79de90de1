"""Euler's steps and the two guidance formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdpo_exp.models.yak import YakConfig
from sdpo_exp.models.yak.latents import grid_ids, schedule, text_ids
from sdpo_exp.models.yak.sampling import (
    Velocity,
    sample_edit,
    sample_t2i,
)
from tests.models.yak.tiny import tiny_inputs, tiny_network

NOISE = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(9))


def constant(value: float) -> Velocity:
    return lambda x, _: torch.full_like(x, value)


def test_a_text_s_velocity_is_extrapolated_from_the_bare_one() -> None:
    found = sample_t2i(NOISE, schedule(3, 12, YakConfig()), constant(2.0), constant(0.5), 3.0)
    torch.testing.assert_close(found, NOISE - (0.5 + 3.0 * (2.0 - 0.5)))


def test_an_edit_s_velocity_has_a_scale_for_the_image_and_one_for_the_text() -> None:
    found = sample_edit(
        NOISE, schedule(3, 12, YakConfig()), constant(2.0), constant(1.5), constant(0.5), 1.7, 6.0
    )
    torch.testing.assert_close(found, NOISE - (0.5 + 1.7 * (1.5 - 0.5) + 6.0 * (2.0 - 1.5)))


def test_the_scripts_scales_are_the_defaults() -> None:
    times = torch.tensor([1.0, 0.0])
    t2i = sample_t2i(NOISE, times, constant(1.0), constant(0.0))
    torch.testing.assert_close(t2i, NOISE - 5.0)
    edit = sample_edit(NOISE, times, constant(1.0), constant(0.0), constant(0.0))
    torch.testing.assert_close(edit, NOISE - 6.0)
    image = sample_edit(NOISE, times, constant(1.0), constant(1.0), constant(0.0))
    torch.testing.assert_close(image, NOISE - 1.5)


def test_a_straight_path_ends_at_the_image_whatever_the_steps() -> None:
    image = torch.ones_like(NOISE)

    def towards(x: Tensor, t: Tensor) -> Tensor:
        return (x - image) / t[:, None, None]

    for steps in (1, 7):
        found = sample_t2i(NOISE, schedule(steps, 4096, YakConfig()), towards, towards)
        torch.testing.assert_close(found, image, rtol=0, atol=1e-5)


def seen_by_the_network(official: bool) -> tuple[list[float], Tensor]:
    seen: list[Tensor] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        seen.append((1000.0 * t).float())
        return torch.ones_like(x)

    times = schedule(50, 4096, YakConfig())
    found = sample_t2i(NOISE, times, velocity, constant(1.0), official_times=official)
    return [float(t[0]) for t in seen], found


def test_official_times_are_rounded_twice_and_steps_are_not() -> None:
    exact, found = seen_by_the_network(official=False)
    rounded, of_rounded = seen_by_the_network(official=True)
    assert torch.equal(found, of_rounded)
    times = schedule(50, 4096, YakConfig())
    assert exact == (1000 * times[:-1]).tolist()
    by_hand = (1000 * times[:-1].bfloat16().float()).bfloat16().float()
    assert rounded == by_hand.tolist()
    assert all(time % 4 == 0 for time in rounded if time > 512)
    worst = max(abs(a - b) for a, b in zip(exact, rounded, strict=True))
    assert worst == pytest.approx(3.5, abs=0.1)
    assert float((1000 * torch.tensor([0.7595]).bfloat16()).float()) == 756


def test_branches_have_texts_of_their_own_length() -> None:
    network = tiny_network().eval()
    ids = grid_ids(3, 4, 2)
    prompt, request = (tiny_inputs(seed, length=n)["txt"] for seed, n in ((1, 7), (2, 3)))
    source = tiny_inputs(3, cond=(2, 3))
    image = (source["cond_img"], source["cond_img_ids"])

    def branch(txt: Tensor, *image: Tensor) -> Velocity:
        return lambda x, t: network(x, ids, txt, text_ids(txt.shape[1], 2), t, None, *image)

    full, no_text, bare = branch(prompt, *image), branch(request, *image), branch(request)
    times = torch.tensor([1.0, 0.4, 0.0])
    found = sample_edit(NOISE, times, full, no_text, bare, 2.0, 3.0)
    x = NOISE
    for now, following in ((1.0, 0.4), (0.4, 0.0)):
        t = torch.full((2,), now)
        zeros = {length: torch.zeros(2, length, 3) for length in (3, 7)}
        c = network(x, ids, prompt, zeros[7], t, None, *image)
        i = network(x, ids, request, zeros[3], t, None, *image)
        b = network(x, ids, request, zeros[3], t)
        x = x + (following - now) * (b + 2.0 * (i - b) + 3.0 * (c - i))
    assert not found.requires_grad
    torch.testing.assert_close(found, x.detach(), rtol=0, atol=1e-5)
    t2i = sample_t2i(NOISE, times, full, bare)
    assert float((t2i - found).abs().max()) > 1e-3
