"""Checkpoints at optimiser-step boundaries."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from sdpo_exp.bounds import PositiveFloat, PositiveInt
from sdpo_exp.callbacks.steps import StepCallback
from sdpo_exp.training import PreferenceModule


# A `Checkpoint`, because Lightning runs those after all other callbacks.
class StepCheckpoint(StepCallback, Checkpoint):
    """`step=<k>.ckpt` every k optimiser steps, and the end of the run as `last.ckpt`.

    Never inside an accumulation window, so a resumed run continues on whole steps. Files that an
    earlier run left in the folder are let alone.

    Args:
        dirpath: where to.
        every_n_steps: optimiser steps between two.
        keep_all: keep every one instead of the newest.
        every_n_minutes: also at the end of the first step that is this long after the one before;
            null: by steps alone.
        keep_last: how many of the newest are kept.
    """

    def __init__(
        self,
        dirpath: str,
        every_n_steps: PositiveInt = 100,
        keep_all: bool = False,
        every_n_minutes: PositiveFloat | None = None,
        keep_last: PositiveInt = 1,
    ) -> None:
        super().__init__(every_n_steps)
        self.dirpath = Path(dirpath)
        self.keep_all, self.keep_last = keep_all, keep_last
        self.every_n_minutes = every_n_minutes
        self._names: list[str] = []
        self._saved_at = time.monotonic()

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """The clock begins."""
        del trainer, module
        self.dirpath.mkdir(parents=True, exist_ok=True)
        self._saved_at = time.monotonic()

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Save where it is due, then take away what is not to be kept."""
        del module
        if self.due(trainer) or self._is_time(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end of the run, whatever the interval."""
        del pl_module
        trainer.save_checkpoint(self.dirpath / "last.ckpt")

    def state_dict(self) -> dict[str, Any]:
        """Which files are this run's."""
        return {"folder": str(self.dirpath.absolute()), "names": list(self._names)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting, in the same folder; another one has none yet."""
        if state_dict.get("folder") == str(self.dirpath.absolute()):
            self._names = [n for n in state_dict["names"] if (self.dirpath / n).is_file()]

    def _is_time(self, trainer: L.Trainer) -> bool:
        if self.every_n_minutes is None:
            return False
        passed = time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
        # One rank decides: clocks differ.
        return bool(trainer.strategy.broadcast(passed))

    def _save(self, trainer: L.Trainer) -> None:
        name = f"step={trainer.global_step}.ckpt"
        self._names = [*(old for old in self._names if old != name), name]
        kept = len(self._names) if self.keep_all else self.keep_last
        old, self._names = self._names[:-kept], self._names[-kept:]
        trainer.save_checkpoint(self.dirpath / name)
        self._saved_at = time.monotonic()
        if trainer.is_global_zero:
            for stale in old:
                (self.dirpath / stale).unlink(missing_ok=True)
