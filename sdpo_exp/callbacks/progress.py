"""How far the training is, in steps and within them, and the numbers that matter."""

from __future__ import annotations

import sys
import time

import lightning as L
import torch

from sdpo_exp.bounds import PositiveFloat, PositiveInt
from sdpo_exp.callbacks.steps import StepCallback
from sdpo_exp.callbacks.window import merge_records
from sdpo_exp.callbacks.winner_loss import trajectory
from sdpo_exp.terminal.fitting import Piece, fit
from sdpo_exp.terminal.pace import Pace, span
from sdpo_exp.terminal.screen import LIVE, columns, is_live
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import PairBatch, StepRecord
from sdpo_exp.words import word

_REDRAWN = 0.1  # seconds between two drawings of the live line
_READ = 1.0  # seconds between two reads of its numbers, each of which waits for the device


class StepProgress(StepCallback):
    """A live line on a terminal, which moves with every micro-batch; elsewhere plain lines.

    Shown are step, time left, pairs per second and peak memory, and of the pairs of the last whole
    step (before there is one: of the pairs so far) loss, winner and loser drift, implicit accuracy
    and mean lambda; on several devices those of the first one's pairs. A narrow terminal gets what
    matters most.

    Args:
        every_n_steps: optimiser steps between two plain lines; the first and the last step always
            have one.
        every_seconds: seconds after which there is a plain line in between, also within a step.
    """

    def __init__(
        self, every_n_steps: PositiveInt = 20, every_seconds: PositiveFloat = 30.0
    ) -> None:
        super().__init__(every_n_steps)
        self.every_seconds = every_seconds
        self._window: list[StepRecord] = []
        self._whole: list[StepRecord] = []
        self._values: dict[str, float] = {}
        self._speaks = self._live = False
        self._said = self._read = 0.0

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Start the clock at the trainer's step."""
        del module
        self._speaks = trainer.is_global_zero
        self._live = self._speaks and is_live()
        self._window, self._whole, self._values = [], [], {}
        self._first = trainer.global_step + 1
        self._pace = Pace(trainer.max_steps, trainer.global_step)
        self._pairs_a_step = 0.0
        self._said = time.monotonic()
        self._read = 0.0

    def on_micro_batch(
        self, trainer: L.Trainer, module: PreferenceModule, record: StepRecord, batch: PairBatch
    ) -> None:
        """Collect, and speak when it is time to."""
        del module
        if not self._speaks:
            return
        micro_batches = int(trainer.accumulate_grad_batches)
        self._window.append(record)
        self._pairs_a_step = len(batch.prompts) * trainer.world_size * micro_batches
        self._pace.advance(1 / micro_batches)
        if trainer.global_step != self._step:
            self._whole, self._window = self._window, []
            self._pace.done = trainer.global_step  # no sum of rounding errors
        if self._live:
            if time.monotonic() - self._said >= _REDRAWN:
                self._draw(trainer)
        elif self._is_due(trainer):
            self._say(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the last state on the screen."""
        del pl_module
        if self._live and self._whole:
            self._read = 0.0
            self._draw(trainer)
            LIVE.keep()
        self._live = False

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal usable."""
        del trainer, pl_module, exception
        LIVE.keep()
        self._live = False

    def _is_due(self, trainer: L.Trainer) -> bool:
        step = trainer.global_step
        whole = step != self._step
        if whole and (step == self._first or self.due(trainer, at_end=True)):
            return True
        return time.monotonic() - self._said >= self.every_seconds

    def _say(self, trainer: L.Trainer) -> None:
        self._said = time.monotonic()
        pieces = [*self._position(trainer), *self._numbers(), *self._speed(trainer)]
        print("  ".join(piece.text for piece in pieces), flush=True)

    def _draw(self, trainer: L.Trainer) -> None:
        self._said = time.monotonic()
        pieces = [*self._position(trainer), *self._speed(trainer), *self._numbers()]
        share = self._pace.done / max(self._pace.total, 1)
        LIVE.draw(fit(pieces, (columns() or 80) - 1), min(share, 1.0))

    def _position(self, trainer: L.Trainer) -> list[Piece]:
        done, total = self._pace.done, trainer.max_steps
        number = f"{done:.2f}" if self._window else f"{trainer.global_step}"
        share = f"{int(100 * done / max(total, 1))}%"
        text = f"step {number}/{total}"
        return [Piece(f"{text}  {share}" if self._live else text, f"{number}/{total} {share}", 9)]

    def _speed(self, trainer: L.Trainer) -> list[Piece]:
        pieces = []
        if (left := self._pace.left) and self._pace.done < self._pace.total:
            pieces.append(Piece(f"{span(left)} left", f"{span(left, short=True)} left", 7))
        if speed := self._pace.speed:
            pairs = f"{speed * self._pairs_a_step:.3g}"
            pieces.append(Piece(f"{pairs} pairs/s", f"{pairs}/s", 5))
        if memory := peak_memory(trainer.strategy.root_device):
            number = f"{memory:.1f}" if memory < 10 else f"{memory:.0f}"
            pieces.append(Piece(f"{number} GiB", f"{number}G", 3))
        return pieces

    def _numbers(self) -> list[Piece]:
        """Read from the device, for a live line no more than once a second."""
        now = time.monotonic()
        if not self._live or now - self._read >= _READ:
            self._values, self._read = means(self._whole or self._window), now
        values = self._values
        loss, accuracy = f"loss {values['loss']:.4f}", f"acc {values['accuracy']:.2f}"
        winner = f"{word('winner_minus_ref')} {values['winner']:+.4f}"
        loser = f"{word('loser_minus_ref')} {values['loser']:+.4f}"
        factor = f"{word('lambda_mean')} {values['lambda']:.2f}"
        return [
            Piece(loss, "", 2),
            Piece(winner, winner, 8),
            Piece(loser, "", 1),
            Piece(accuracy, accuracy, 4),
            Piece(factor, factor, 6),
        ]


def means(records: list[StepRecord]) -> dict[str, float]:
    """Means over the pairs of some micro-batches, in one host read."""
    window = merge_records(records)
    values = trajectory(window)
    shown = {
        "loss": values["train/loss"],
        "winner": values["pair/winner_minus_ref"],
        "loser": values["pair/loser_minus_ref"],
        "accuracy": values["pair/implicit_accuracy"],
        "lambda": window.lambda_safe.mean(),
    }
    read = torch.stack([value.float() for value in shown.values()]).tolist()
    return dict(zip(shown, read, strict=True))


def peak_memory(device: torch.device) -> float:
    """GiB at most so far: allocated on a CUDA device, else resident in main memory; 0: unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
