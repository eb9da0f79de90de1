"""Pairs per second over all devices."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.training import PreferenceModule


class Throughput(Callback):
    """Logs `perf/pairs_per_second` and `perf/step_seconds` over the last `every_n_steps` steps.

    Time spent in other callbacks (the probe, checkpoints) counts: it is time that a run takes.
    """

    def __init__(self, every_n_steps: PositiveInt = 10) -> None:
        self.every_n_steps = every_n_steps
        self._mark, self._marked_step = 0.0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        del pl_module
        self._mark, self._marked_step = time.perf_counter(), trainer.global_step

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Read the clock at optimiser steps that are due."""
        del outputs, batch_idx
        step, now = trainer.global_step, time.perf_counter()
        steps = step - self._marked_step
        if steps == 0 or step % self.every_n_steps:
            return
        seconds = (now - self._mark) / steps
        pairs = len(batch.prompts) * trainer.accumulate_grad_batches * trainer.world_size
        self._mark, self._marked_step = now, step
        assert isinstance(pl_module, PreferenceModule)
        pl_module.report({"perf/step_seconds": seconds, "perf/pairs_per_second": pairs / seconds})
