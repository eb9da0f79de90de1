from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.data.sampler import BatchLayout, StepSampler
from sdpo_exp.types import PairKey

LAYOUTS_OF_24 = [
    (micro, accumulation, 24 // micro // accumulation)
    for micro in (1, 2, 3, 4, 6, 8, 12, 24)
    for accumulation in (1, 2, 3, 4, 6, 8, 12, 24)
    if 24 % (micro * accumulation) == 0
]


def steps_of(
    size: int, layout: tuple[int, int, int], max_steps: int, *, seed: int = 0, start_step: int = 0
) -> list[list[PairKey]]:
    """Each step's keys: micro-batch by micro-batch, and within one rank by rank."""
    micro, accumulation, world = layout
    ranks = [
        list(
            StepSampler(
                size, seed, BatchLayout(micro, accumulation, rank, world), max_steps, start_step
            )
        )
        for rank in range(world)
    ]
    assert all(len(keys) == micro for batches in ranks for keys in batches)
    interleaved = [
        [key for batch in together for key in batch] for together in zip(*ranks, strict=True)
    ]
    return [
        [key for keys in interleaved[i : i + accumulation] for key in keys]
        for i in range(0, len(interleaved), accumulation)
    ]


@pytest.mark.parametrize("layout", LAYOUTS_OF_24)
def test_every_layout_trains_on_the_same_pairs_in_the_same_order(layout):
    assert steps_of(100, layout, max_steps=6) == steps_of(100, (24, 1, 1), max_steps=6)


@given(
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 1000),
)
def test_a_step_is_exactly_the_effective_batch_and_no_pair_is_skipped_or_repeated(
    size, micro, accumulation, world, seed
):
    layout = (micro, accumulation, world)
    effective = micro * accumulation * world
    assert BatchLayout(micro, accumulation, 0, world).effective_batch == effective
    steps = steps_of(size, layout, max_steps=5, seed=seed)
    assert [len(step) for step in steps] == [effective] * 5
    stream = [key for step in steps for key in step]
    # The stream counts through the positions of epoch 0, then 1, ... without a gap.
    places = [(key.epoch, key.position) for key in stream]
    assert places == [divmod(i, size) for i in range(5 * effective)]


def test_every_finished_epoch_visits_each_row_once_and_epochs_differ():
    stream = [key for step in steps_of(10, (4, 1, 1), max_steps=10) for key in step]
    epochs = [[key.row for key in stream if key.epoch == epoch] for epoch in range(4)]
    assert all(sorted(order) == list(range(10)) for order in epochs)
    assert len({tuple(order) for order in epochs}) > 1


def test_a_window_may_cross_the_end_of_an_epoch_without_being_short():
    first, second = steps_of(10, (8, 1, 1), max_steps=2)
    assert Counter(key.epoch for key in first) == {0: 8}
    assert Counter(key.epoch for key in second) == {0: 2, 1: 6}


def test_a_window_may_span_several_epochs_of_a_small_source():
    (step,) = steps_of(3, (8, 1, 1), max_steps=1)
    assert Counter(key.epoch for key in step) == {0: 3, 1: 3, 2: 2}


@pytest.mark.parametrize("start", [0, 1, 4, 6])
@pytest.mark.parametrize("layout", [(2, 2, 1), (1, 2, 2)])
def test_start_step_continues_exactly(start, layout):
    whole = steps_of(7, layout, max_steps=6)
    assert steps_of(7, layout, max_steps=6, start_step=start) == whole[start:]


def test_a_longer_run_begins_with_the_shorter_one():
    assert steps_of(7, (2, 1, 1), max_steps=9)[:4] == steps_of(7, (2, 1, 1), max_steps=4)


def test_iterating_twice_gives_the_same_stream():
    sampler = StepSampler(7, 0, BatchLayout(2, 2), max_steps=6)
    assert list(sampler) == list(sampler)


def test_the_seed_changes_the_order():
    first, second = (steps_of(50, (10, 1, 1), max_steps=2, seed=seed) for seed in (0, 1))
    assert [key.row for key in first[0]] != [key.row for key in second[0]]


@pytest.mark.parametrize("start", [0, 2])
def test_len_counts_the_micro_batches_of_one_rank_over_the_whole_run(start):
    layout = BatchLayout(micro_batch=3, accumulation=4, rank=1, world=2)
    sampler = StepSampler(50, 0, layout, max_steps=5, start_step=start)
    assert len(sampler) == 20
    assert len(list(sampler)) == 20 - 4 * start


def test_keys_are_plain_ints_that_stay_on_the_host():
    key = StepSampler(7, 0, BatchLayout(1, 1), max_steps=1).key(9)
    assert (key.epoch, key.position) == (1, 2)
    assert all(type(value) is int for value in key)
