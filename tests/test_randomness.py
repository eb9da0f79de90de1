import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.randomness import (
    Stream,
    draw_noise,
    draw_uniform,
    permutation,
)
from sdpo_exp.types import PairKey


def keys(positions, epoch: int = 0) -> list[PairKey]:
    return [PairKey(epoch, position, 7) for position in positions]


@given(st.integers(0, 2**32), st.integers(0, 50), st.lists(st.integers(0, 10**6), min_size=2))
def test_a_pair_draws_the_same_in_any_batch(seed, epoch, positions):
    together = keys(positions, epoch)
    noise = draw_noise(seed, together, (2, 3))
    uniform = draw_uniform(seed, together, Stream.TIMESTEP)
    for row, key in enumerate(together):
        assert torch.equal(draw_noise(seed, [key], (2, 3))[0], noise[row])
        assert draw_uniform(seed, [key], Stream.TIMESTEP)[0] == uniform[row]


def test_draws_depend_on_the_position_and_not_on_the_row_of_the_source():
    first, second = PairKey(0, 5, 1), PairKey(0, 5, 2)
    assert torch.equal(draw_noise(0, [first], (4,)), draw_noise(0, [second], (4,)))
    other = PairKey(0, 6, 1)
    assert not torch.equal(draw_noise(0, [first], (4,)), draw_noise(0, [other], (4,)))


def test_draws_leave_the_global_generator_alone_and_ignore_it():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = draw_noise(0, keys(range(3)), (4,))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(draw_noise(0, keys(range(3)), (4,)), first)


def test_shapes_and_dtypes():
    noise = draw_noise(0, keys(range(3)), (4, 2, 2))
    uniform = draw_uniform(0, keys(range(3)), Stream.PROMPT_DROPOUT)
    assert (noise.shape, noise.dtype) == ((3, 4, 2, 2), torch.float32)
    assert (uniform.shape, uniform.dtype) == ((3,), torch.float32)


def test_draws_differ_in_every_coordinate():
    coordinates = itertools.product(range(4), range(5), range(30))
    rows = [draw_noise(seed, keys([place], epoch), (2,)) for seed, epoch, place in coordinates]
    assert len({tuple(row[0].tolist()) for row in rows}) == 600
    uniform = [draw_uniform(0, keys(range(20)), stream) for stream in Stream]
    assert len(torch.cat(uniform).unique()) == 20 * len(Stream)


def test_numbers_are_pinned():
    # A change here changes every run's numbers: say so in the changelog.
    key = keys([3], epoch=1)
    assert draw_noise(7, key, (2,))[0].tolist() == pytest.approx([0.658821, -1.937314], abs=1e-6)
    assert draw_uniform(7, key, Stream.TIMESTEP).item() == pytest.approx(0.346010, abs=1e-5)
    assert permutation(7, 1, 8).tolist() == [6, 3, 1, 0, 2, 4, 7, 5]


def test_streams_of_one_pair_are_uncorrelated():
    pairs = keys(range(2000))
    timestep = draw_uniform(0, pairs, Stream.TIMESTEP)
    dropout = draw_uniform(0, pairs, Stream.PROMPT_DROPOUT)
    noise = draw_noise(0, pairs, (1,))[:, 0]
    # The standard error of a correlation of 2,000 independent draws is 0.022.
    correlation = torch.corrcoef(torch.stack([timestep, dropout, noise]))
    assert (correlation - torch.eye(3)).abs().max() < 0.08


def test_neighbouring_pairs_and_epochs_are_uncorrelated():
    rows = [draw_uniform(0, keys(range(2001), epoch), Stream.TIMESTEP) for epoch in (0, 1)]
    series = torch.stack([rows[0][:-1], rows[0][1:], rows[1][1:]])
    assert (torch.corrcoef(series) - torch.eye(3)).abs().max() < 0.08


def test_noise_is_standard_normal():
    noise = draw_noise(3, keys(range(200)), (4, 8, 8)).flatten()  # 51,200 numbers
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.015
    assert abs(noise.pow(3).mean()) < 0.06
    assert abs(noise.pow(4).mean() - 3) < 0.15


def test_uniform_draws_fill_the_half_open_unit_interval():
    uniform = draw_uniform(3, keys(range(5000)), Stream.TIMESTEP)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    counts = torch.histc(uniform, bins=10, min=0, max=1)
    assert (counts - 500).abs().max() < 100  # 4.7 standard deviations


@pytest.mark.parametrize(("first", "second"), [(24_238, 50_214), (75_673, 89_578)])
def test_pairs_whose_seeds_agree_in_the_low_32_bits_still_differ(first, second):
    # torch's CPU generator keeps 32 bits of a seed: at 4 million pairs that is about 1,900
    # pairs of pairs with one and the same noise.
    noise = draw_noise(0, keys([first, second]), (4,))
    assert not torch.equal(noise[0], noise[1])


@given(st.integers(0, 2**32), st.integers(0, 100), st.integers(1, 300))
def test_a_permutation_visits_every_row_once(seed, epoch, size):
    assert sorted(permutation(seed, epoch, size).tolist()) == list(range(size))


def test_permutations_differ_between_seeds_and_epochs():
    orders = {tuple(permutation(seed, epoch, 50)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
