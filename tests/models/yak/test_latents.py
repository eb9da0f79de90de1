"""Tokens, positions and the sampler's times."""

from __future__ import annotations

import math

import pytest
import torch

from sdpo_exp.models.flow_process import resolution_mu
from sdpo_exp.models.yak import YakConfig
from sdpo_exp.models.yak.latents import grid_ids, pack, schedule, shift, text_ids, unpack


def test_unpacking_is_the_inverse_of_packing() -> None:
    latents = torch.randn(2, 4, 6, 10, generator=torch.Generator().manual_seed(0))
    tokens = pack(latents)
    assert tokens.shape == (2, 15, 16)
    assert torch.equal(unpack(tokens, 6, 10), latents)
    assert torch.equal(pack(unpack(tokens, 10, 6)), tokens)


def test_a_token_holds_one_channel_s_four_cells_after_the_other() -> None:
    latents = torch.arange(2 * 4 * 4 * 6).reshape(2, 4, 4, 6)
    tokens = pack(latents)
    for row in range(2):
        for column in range(3):
            for c in range(4):
                for p in range(2):
                    for q in range(2):
                        there = tokens[1, 3 * row + column, 4 * c + 2 * p + q]
                        assert there == latents[1, c, 2 * row + p, 2 * column + q]


def test_sizes_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match="even sides, got 3x4"):
        pack(torch.zeros(1, 4, 3, 4))
    with pytest.raises(ValueError, match="even sides"):
        unpack(torch.zeros(1, 4, 16), 4, 5)
    with pytest.raises(ValueError, match="latents of 4x6 are 6 tokens, not 4"):
        unpack(torch.zeros(1, 4, 16), 4, 6)


def test_positions_count_rows_and_columns_of_tokens() -> None:
    ids = grid_ids(2, 3, 2, axis0=1.0)
    assert ids.dtype == torch.float32
    by_hand = [[1, y, x] for y in range(2) for x in range(3)]
    assert ids.tolist() == [by_hand, by_hand]
    assert grid_ids(1, 1, 1).tolist() == [[[0, 0, 0]]]
    assert text_ids(2, 3).shape == (3, 2, 3)
    assert not text_ids(2, 3).any()


def test_mu_is_a_line_without_ends() -> None:
    assert resolution_mu(256, 0.5, 1.15) == 0.5
    assert resolution_mu(4096, 0.5, 1.15) == pytest.approx(1.15)
    assert resolution_mu(16384, 0.5, 1.15) == pytest.approx(3.23)
    assert math.exp(resolution_mu(1024, 0.5, 1.15)) == pytest.approx(1.88, abs=5e-3)


@pytest.mark.parametrize(
    ("tokens", "first"),
    [(4096, [1, 0.98841, 0.97622, 0.96339]), (1024, [1, 0.98066, 0.96064, 0.93993])],
)
def test_the_first_times_are_the_released_sampler_s(tokens: int, first: list[float]) -> None:
    times = schedule(28, tokens, YakConfig())
    assert times.dtype == torch.float32
    assert times.shape == (29,)
    assert times[:4].tolist() == pytest.approx(first, abs=5e-6)
    assert times[-1] == 0
    assert bool((times.diff() < 0).all())


def test_without_a_shift_times_are_evenly_spaced() -> None:
    assert schedule(4, 4096, YakConfig(timestep_shift=False)).tolist() == [1, 0.75, 0.5, 0.25, 0]
    with pytest.raises(ValueError, match="at least 1"):
        schedule(0, 4096, YakConfig())


def test_a_shift_adds_mu_on_the_logit_scale_and_keeps_the_ends() -> None:
    s = torch.linspace(0.01, 0.99, 50)
    torch.testing.assert_close(torch.logit(shift(s, 0.7)), torch.logit(s) + 0.7)
    assert shift(torch.tensor([0.0, 1.0]), 3.2).tolist() == [0, 1]
    torch.testing.assert_close(shift(s, 0.0), s)
