"""How many held-out pairs a run looks at, where there are fewer than it would by default."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config.command_line import given_keys
from sdpo_exp.data.holdout import too_few
from sdpo_exp.errors import UserError

if TYPE_CHECKING:
    from sdpo_exp.data.datamodule import PairDataModule

HELD_OUT = ("callbacks.probe.pairs", "data.validation_pairs")


def fit_held_out(config: DictConfig, data: PairDataModule, given: Collection[str]) -> list[str]:
    """Lower the numbers that nobody gave to what the data has, in `config` and `data`.

    Args:
        config: of the run.
        data: what it trains on.
        given: words of the command line.

    Returns:
        What was lowered, in a sentence each.

    Raises:
        UserError: a number that was given is too large, or the held-out source has no end.
    """
    keys = given_keys(given)
    data.check_held_out(0, HELD_OUT[1])
    there = data.held_out_pairs() or 0
    notes, mistakes = [], []
    for key in HELD_OUT:
        wanted = OmegaConf.select(config, key, default=None) or 0
        if (problem := too_few(key, wanted, there)) is None:
            continue
        if key in keys:
            mistakes.append(problem)
            continue
        OmegaConf.update(config, key, there)
        notes.append(f"{key}={there} instead of {wanted}, for so many held-out pairs there are")
    if mistakes:
        raise UserError("\n".join(mistakes))
    data.validation_pairs = config.data.validation_pairs
    return notes
