"""A progress line that counts optimiser steps and shows the numbers that matter."""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
from tqdm import tqdm

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.callbacks.window import WindowCallback
from sdpo_exp.callbacks.winner_loss import trajectory
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import StepRecord


class StepProgress(WindowCallback):
    """A bar on a terminal; elsewhere (a log file, CI) a plain line every `every_n_steps` steps.

    Shows loss, winner and loser errors minus the reference's, implicit accuracy and mean lambda
    of the step's whole window.
    """

    def __init__(self, every_n_steps: PositiveInt = 20) -> None:
        super().__init__(every_n_steps)
        self._bar: tqdm[Any] | None = None

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Open the bar at the trainer's step."""
        super().on_start(trainer, module)
        if trainer.is_global_zero and sys.stderr.isatty():
            self._bar = tqdm(
                total=trainer.max_steps,
                initial=trainer.global_step,
                unit="step",
                dynamic_ncols=True,
            )

    def on_window(self, trainer: L.Trainer, module: PreferenceModule, window: StepRecord) -> None:
        """Speak, on one rank."""
        del module
        text = numbers(window)
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)
        elif trainer.is_global_zero:
            print(f"step {trainer.global_step}/{trainer.max_steps}  {text}", flush=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        del trainer, pl_module
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal usable."""
        del trainer, pl_module, exception
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def numbers(window: StepRecord) -> str:
    """One line of a window's means."""
    values = trajectory(window)
    return (
        f"loss {float(values['train/loss']):.4f}"
        f"  winner-ref {float(values['pair/winner_minus_ref']):+.4f}"
        f"  loser-ref {float(values['pair/loser_minus_ref']):+.4f}"
        f"  acc {float(values['pair/implicit_accuracy']):.2f}"
        f"  lambda {float(window.lambda_safe.mean()):.2f}"
    )
