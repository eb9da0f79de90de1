"""Checkpoints at optimiser-step boundaries."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from sdpo_exp.bounds import PositiveInt


class StepCheckpoint(ModelCheckpoint):
    """`step=<k>.ckpt` every k optimiser steps, and the end of the run as `last.ckpt`.

    Never inside an accumulation window, so a resumed run continues on whole steps.

    Args:
        dirpath: where to.
        every_n_steps: optimiser steps between two.
        keep_all: keep every one instead of the newest.
    """

    def __init__(
        self, dirpath: str, every_n_steps: PositiveInt = 100, keep_all: bool = False
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="{step}",
            every_n_train_steps=every_n_steps,
            save_top_k=-1 if keep_all else 1,
            enable_version_counter=False,
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end of the run, whatever the interval."""
        super().on_train_end(trainer, pl_module)
        trainer.save_checkpoint(f"{self.dirpath}/last.ckpt")
