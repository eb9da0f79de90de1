"""All lambdas of an optimiser step, for loggers that draw distributions."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.callbacks.window import WindowCallback
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import PairBatch, StepRecord

Taker = Callable[[str, list[float], int], object]


class LambdaHistogram(WindowCallback):
    """Histograms `safeguard/lambda_histogram` and `safeguard/would_be_histogram` over pairs.

    Without a logger that takes histograms (W&B, TensorBoard) nothing is collected or gathered.

    Args:
        every_n_steps: optimiser steps between two; each is of the pairs of its own step.
    """

    def __init__(self, every_n_steps: PositiveInt = 20) -> None:
        super().__init__(every_n_steps)
        self._takers: list[Taker] = []

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Find out who listens; all ranks have the same loggers, so they agree."""
        super().on_start(trainer, module)
        found = (taker_of(logger) for logger in trainer.loggers)
        self._takers = [taker for taker in found if taker is not None]

    def on_micro_batch(
        self, trainer: L.Trainer, module: PreferenceModule, record: StepRecord, batch: PairBatch
    ) -> None:
        """Collect, if anybody listens."""
        if self._takers:
            super().on_micro_batch(trainer, module, record, batch)

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Close the window, if anybody listens."""
        if self._takers:
            super().on_step(trainer, module)

    def on_window(self, trainer: L.Trainer, module: PreferenceModule, window: StepRecord) -> None:
        """Hand on both distributions, in one host read."""
        del module
        if not trainer.is_global_zero:
            return
        read = torch.stack([window.lambda_safe.float(), window.lambda_would_be.float()]).tolist()
        names = ("safeguard/lambda_histogram", "safeguard/would_be_histogram")
        for name, values in zip(names, read, strict=True):
            for take in self._takers:
                take(name, values, trainer.global_step)


def taker_of(logger: Logger) -> Taker | None:
    """How a logger takes a histogram, or None."""
    own: Taker | None = getattr(logger, "log_histogram", None)
    if own is None and isinstance(logger, TensorBoardLogger):

        def take(name: str, values: list[float], step: int) -> None:
            logger.experiment.add_histogram(name, torch.tensor(values), step)

        return take
    return own
