"""Numbers of held-out pairs that nobody gave shrink to what there is; given ones are refused."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.train.held_out import fit_held_out
from sdpo_exp.errors import UserError
from tests.harness import small_data


def config(probe: int, validation: int) -> DictConfig:
    return OmegaConf.create(
        {
            "callbacks": {"probe": {"pairs": probe}},
            "data": {"validation_pairs": validation},
        }
    )


def data() -> Any:
    return small_data(micro_batch=2)


def test_defaults_shrink_with_a_note_each() -> None:
    mine, pairs = config(64, 256), data()
    there = len(pairs.validation)
    notes = fit_held_out(mine, pairs, ["seed=1"])
    assert [note.split(",")[0] for note in notes] == [
        f"callbacks.probe.pairs={there} instead of 64",
        f"data.validation_pairs={there} instead of 256",
    ]
    assert mine.callbacks.probe.pairs == pairs.validation_pairs == there


def test_what_fits_stays_and_a_probe_that_is_not_there_asks_for_nothing() -> None:
    mine = config(2, 0)
    del mine.callbacks.probe
    assert fit_held_out(mine, data(), []) == []
    assert fit_held_out(config(2, 2), data(), []) == []


def test_all_numbers_that_were_given_are_refused_at_once() -> None:
    given = ["callbacks.probe.pairs=64", "+data.validation_pairs=256"]
    with pytest.raises(UserError) as error:
        fit_held_out(config(64, 256), data(), given)
    assert len(str(error.value).splitlines()) == 2
