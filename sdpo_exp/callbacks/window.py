"""Statistics over what an optimiser step really saw: all its micro-batches, on all ranks."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import StepRecord


def merge_records(records: list[StepRecord]) -> StepRecord:
    """Concatenate micro-batches; `finite` is true when all are."""
    fields = {name: torch.cat([getattr(r, name) for r in records]) for name in _PER_PAIR}
    return StepRecord(**fields, finite=torch.stack([r.finite for r in records]).all())


_PER_PAIR = tuple(name for name in StepRecord._fields if name != "finite")


def gather_record(module: L.LightningModule, record: StepRecord) -> StepRecord:
    """The record over all ranks, in one collective; as it is on a single device."""
    if module.trainer.world_size == 1:
        return record
    table = torch.stack([getattr(record, name).float() for name in _PER_PAIR])
    ranks = torch.as_tensor(module.all_gather(table))  # (world, fields, B)
    rows = ranks.transpose(0, 1).flatten(1)
    finite = torch.as_tensor(module.all_gather(record.finite.float())).bool().all()
    return StepRecord(**dict(zip(_PER_PAIR, rows, strict=True)), finite=finite)


class WindowCallback(Callback):
    """Collects the records of an accumulation window and hands them on at its optimiser step.

    Args:
        every_n_steps: optimiser steps between two reports; only then is anything gathered or
            read back from the device.
    """

    def __init__(self, every_n_steps: PositiveInt = 1) -> None:
        self.every_n_steps = every_n_steps
        self._records: list[StepRecord] = []
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start counting at the trainer's step, which is not 0 in a resumed run."""
        del pl_module
        self._records, self._step = [], trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Collect; at an optimiser step that is due, report."""
        del batch, batch_idx
        self._records.append(outputs["record"])
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        records, self._records = self._records, []
        if self._step % self.every_n_steps == 0:
            assert isinstance(pl_module, PreferenceModule)
            self.on_window(trainer, pl_module, gather_record(pl_module, merge_records(records)))

    def on_window(self, trainer: L.Trainer, module: PreferenceModule, window: StepRecord) -> None:
        """Called on every rank with all pairs of the optimiser step."""
        raise NotImplementedError
