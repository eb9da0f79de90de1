"""Noise that follows from (seed, index), and noise that all prompts share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sdpo_exp.errors import UserError
from sdpo_exp.generation.noise import Draw, generators, initial_latents, latent_shape
from sdpo_exp.randomness import sampling_noise

SHAPE = (2, 3, 4)


def draws(*pairs: tuple[int, int]) -> list[Draw]:
    return [Draw("a cat", index, seed) for index, seed in pairs]


def test_noise_is_that_of_a_run_s_own_evaluation() -> None:
    found = initial_latents(draws((0, 5), (1, 5), (2, 5)), SHAPE)
    assert torch.equal(found, sampling_noise(5, 3, SHAPE))


def test_an_image_s_noise_depends_on_seed_and_index_alone() -> None:
    together = initial_latents(draws((0, 0), (7, 0), (7, 1)), SHAPE)
    assert torch.equal(together[1:2], initial_latents(draws((7, 0)), SHAPE))
    rows = [row.flatten().tolist() for row in together]
    assert rows[0] != rows[1] != rows[2] != rows[0]


def test_shared_noise_is_one_for_all_prompts_of_a_seed() -> None:
    first, second, other = (
        torch.randn(4, generator=g)
        for g in generators(draws((0, 3), (1, 3), (1, 4)), "shared", "cpu")
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    # The public code: one generator, seeded anew before each prompt.
    assert torch.equal(first, torch.randn(4, generator=torch.Generator().manual_seed(3)))


def test_a_sampler_s_own_noise_differs_between_prompts() -> None:
    first, second, again = (
        torch.randn(4, generator=g)
        for g in generators(draws((0, 3), (1, 3), (0, 3)), "prompt", "cpu")
    )
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def pipeline(**config: Any) -> Any:
    return SimpleNamespace(unet=SimpleNamespace(config=SimpleNamespace(**config)))


def test_the_shape_is_the_denoiser_s_or_follows_from_the_size() -> None:
    unet = pipeline(in_channels=4, sample_size=64)
    unet.vae_scale_factor = 8
    assert latent_shape(unet, None, None) == (4, 64, 64)
    assert latent_shape(unet, 512, 768) == (4, 64, 96)
    assert latent_shape(pipeline(in_channels=12, sample_size=(16, 8)), None, None) == (12, 16, 8)
    with pytest.raises(UserError, match="multiples of 8, got 100"):
        latent_shape(unet, 100, None)


def test_a_denoiser_that_names_no_shape_is_told() -> None:
    with pytest.raises(UserError, match="give noise=shared"):
        latent_shape(SimpleNamespace(), None, None)
