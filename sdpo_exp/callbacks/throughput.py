"""Pairs per second over all devices."""

from __future__ import annotations

import time

import lightning as L

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.callbacks.steps import StepCallback
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import PairBatch, StepRecord


class Throughput(StepCallback):
    """Logs `perf/pairs_per_second` and `perf/step_seconds` over the last `every_n_steps` steps.

    Time spent in other callbacks (the probe, checkpoints) counts: it is time that a run takes.
    """

    def __init__(self, every_n_steps: PositiveInt = 10) -> None:
        super().__init__(every_n_steps)
        self._mark, self._marked_step, self._pairs = 0.0, 0, 0

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Start the clock."""
        del module
        self._mark, self._marked_step, self._pairs = time.perf_counter(), trainer.global_step, 0

    def on_micro_batch(
        self, trainer: L.Trainer, module: PreferenceModule, record: StepRecord, batch: PairBatch
    ) -> None:
        """Count this rank's pairs; all ranks have as many."""
        del module, record
        self._pairs += len(batch.prompts) * trainer.world_size

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Read the clock at optimiser steps that are due."""
        if not self.due(trainer):
            return
        seconds = time.perf_counter() - self._mark
        steps = trainer.global_step - self._marked_step
        pairs = self._pairs
        self.on_start(trainer, module)
        module.report(
            {"perf/step_seconds": seconds / steps, "perf/pairs_per_second": pairs / seconds}
        )
