"""Micro-batches and optimiser steps, told apart once for all callbacks; looking in between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.terminal.progress import QUIET, Progress
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import PairBatch, StepRecord


class StepCallback(Callback):
    """Lightning's batch hooks as `on_start`, `on_micro_batch` and `on_step`.

    Args:
        every_n_steps: `due` is true at multiples of this many optimiser steps.
    """

    def __init__(self, every_n_steps: PositiveInt = 1) -> None:
        self.every_n_steps = every_n_steps
        self._step = 0

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Before the first micro-batch; the trainer's step is not 0 in a resumed run."""

    def on_micro_batch(
        self, trainer: L.Trainer, module: PreferenceModule, record: StepRecord, batch: PairBatch
    ) -> None:
        """After every micro-batch."""

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """After the last micro-batch of every optimiser step."""

    def due(self, trainer: L.Trainer, *, at_end: bool = False) -> bool:
        """Whether this optimiser step is one to act on; `at_end`: the last always is."""
        if trainer.global_step % self.every_n_steps == 0:
            return True
        return at_end and (trainer.global_step == trainer.max_steps or trainer.should_stop)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's hook."""
        assert isinstance(pl_module, PreferenceModule)
        self._step = trainer.global_step
        self.on_start(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Lightning's hook."""
        del batch_idx
        assert isinstance(pl_module, PreferenceModule)
        self.on_micro_batch(trainer, pl_module, outputs["record"], batch)
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self.on_step(trainer, pl_module)


def quantities(reported: Iterable[str]) -> list[str]:
    """Names of what a visit may be judged by: no parts by time, and not how sure a number is."""
    aside = ("_se", "/pairs")
    return [name for name in reported if name.count("/") == 1 and not name.endswith(aside)]


def visit_progress(trainer: L.Trainer, label: str, total: int, unit: str = "pair") -> Progress:
    """Of a visit in the course of the training; nothing is said of a short one."""
    return Progress(label, total, unit, shown=trainer.is_global_zero, quiet=QUIET)


@contextmanager
def undisturbed(policy: nn.Module) -> Iterator[None]:
    """Eval mode, and training's modes and random state again afterwards.

    A data loader takes its workers' seed from the global generator, which dropout uses too.
    """
    modes = [(layer, layer.training) for layer in policy.modules()]
    policy.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for layer, mode in modes:
            layer.training = mode
