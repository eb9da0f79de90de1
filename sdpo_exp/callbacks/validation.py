"""The validation loop: the whole validation split under frozen timesteps and noise.

Driven here and not by Lightning's own loop, which runs after a step's row is logged and its
checkpoint written, knows no step 0 and counts micro-batches.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning as L
import torch
from torch import Tensor

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.callbacks.steps import StepCallback, undisturbed, visit_progress
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import ValidationRecord

_log = logging.getLogger(__name__)
QUANTITIES = (
    "winner_error",
    "loser_error",
    "winner_minus_ref",
    "loser_minus_ref",
    "margin",
    "implicit_accuracy",
    "loss",
)
_WITH_STANDARD_ERROR = ("winner_minus_ref", "loser_minus_ref", "margin")


class ValidationMetrics(StepCallback):
    """Means over the validation pairs, of all ranks, as `val/<quantity>`.

    Each pair counts once, whatever the micro-batch and however unevenly the ranks share them.
    The policy is in eval mode meanwhile, and training goes on as if nothing had happened. Standard
    errors over pairs are logged as `val/<quantity>_se`.

    Args:
        every_n_steps: optimiser steps between two visits; step 0 and the last are always visited.
    """

    def __init__(self, every_n_steps: PositiveInt = 120) -> None:
        super().__init__(every_n_steps)
        self._loader: Any = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keep Lightning from going through the same pairs once more."""
        del pl_module, stage
        trainer.limit_val_batches = 0

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Open the validation pairs, or say that there are none; visit once before training."""
        loader = trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]
        # A loader of no batches is one all the same: other ranks wait for its sums.
        self._loader = None if loader == [] else loader
        if self._loader is not None:
            self._visit(trainer, module)
        elif trainer.is_global_zero:
            _log.warning(
                "callbacks.validation: no val/*, because no pairs are set apart; give "
                "data.validation_pairs=<number>"
            )

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Visit at the optimiser steps that are due, and at the last."""
        if self._loader is not None and self.due(trainer, at_end=True):
            self._visit(trainer, module)

    @torch.no_grad()
    def _visit(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        tables = [torch.zeros(len(QUANTITIES), 0)]
        share = math.ceil(data.validation_pairs / trainer.world_size)  # of the one who speaks
        progress = visit_progress(trainer, "validation", share)
        with undisturbed(module.policy), progress:
            for index, batch in enumerate(self._loader):
                batch = data.on_before_batch_transfer(batch, 0)
                batch = module.transfer_batch_to_device(batch, module.device, 0)
                with trainer.precision_plugin.forward_context():
                    record = module.validation_step(batch, index)["record"]
                tables.append(_table(record).cpu())
                progress.advance(tables[-1].shape[1])
        module.report(_metrics(_total(trainer, torch.cat(tables, dim=1).double())))


def _table(record: ValidationRecord) -> Tensor:
    """(7, B), in the order of `QUANTITIES`."""
    winner = record.winner_error - record.winner_ref_error
    loser = record.loser_error - record.loser_ref_error
    correct = 0.5 * (1.0 - torch.sign(winner - loser))
    rows = [record.winner_error, record.loser_error, winner, loser, loser - winner, correct]
    return torch.stack([*rows, record.loss]).float()


def _total(trainer: L.Trainer, table: Tensor) -> Tensor:
    """(3, 7) over all ranks: pairs, sums and sums of squares of this rank's (7, N)."""
    pairs = torch.full((len(table),), float(table.shape[1]), dtype=table.dtype)
    sums = torch.stack([pairs, table.sum(1), table.square().sum(1)])
    if trainer.world_size == 1:
        return sums
    total = trainer.strategy.reduce(sums.to(trainer.strategy.root_device), reduce_op="sum")
    return torch.as_tensor(total).cpu()


def _metrics(total: Tensor) -> dict[str, float]:
    pairs, sums, squares = total
    means = sums / pairs
    variances = (squares - pairs * means.square()).clamp_min(0) / (pairs - 1)
    errors = (variances / pairs).sqrt()
    metrics = dict(zip(QUANTITIES, means.tolist(), strict=True))
    spread = dict(zip(QUANTITIES, errors.tolist(), strict=True))
    metrics |= {f"{name}_se": spread[name] for name in _WITH_STANDARD_ERROR}
    return {f"val/{name}": value for name, value in metrics.items()}
