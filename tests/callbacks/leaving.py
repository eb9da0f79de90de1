"""A callback that leaves the whole program, as some libraries do when something is wrong."""

from __future__ import annotations

import sys

import lightning as L


class Leaves(L.Callback):
    """Calls `sys.exit(3)` once training has begun."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        sys.exit(3)


class Breaks(L.Callback):
    """Has a mistake of its own in it."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        raise RuntimeError("a mistake of the callback's own")
