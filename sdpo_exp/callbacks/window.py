"""Statistics over what an optimiser step really saw: all its micro-batches, on all ranks."""

from __future__ import annotations

import lightning as L
import torch

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.callbacks.steps import StepCallback
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import PairBatch, StepRecord


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


class WindowCallback(StepCallback):
    """Collects the records of an accumulation window and hands them on at its optimiser step.

    Only at steps that are due is anything gathered, or read back from the device.
    """

    def __init__(self, every_n_steps: PositiveInt = 1) -> None:
        super().__init__(every_n_steps)
        self._records: list[StepRecord] = []

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Begin an empty window."""
        del trainer, module
        self._records = []

    def on_micro_batch(
        self, trainer: L.Trainer, module: PreferenceModule, record: StepRecord, batch: PairBatch
    ) -> None:
        """Collect."""
        del trainer, module, batch
        self._records.append(record)

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Close the window; report it when it is due."""
        records, self._records = self._records, []
        if self.due(trainer):
            self.on_window(trainer, module, gather_record(module, merge_records(records)))

    def on_window(self, trainer: L.Trainer, module: PreferenceModule, window: StepRecord) -> None:
        """Called on every rank with all pairs of the optimiser step."""
        raise NotImplementedError
