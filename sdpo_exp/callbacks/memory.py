"""What the run holds before its first activation, in one line at its start."""

from __future__ import annotations

import logging

import lightning as L
from lightning.pytorch.callbacks import Callback

from sdpo_exp.training import PreferenceModule
from sdpo_exp.training.memory import estimate

_log = logging.getLogger(__name__)


class MemoryEstimateReport(Callback):
    """Logs `static memory ... GiB: weights ..., optimizer ...` once, for one device."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """After the precision has cast the module, so dtypes are those of training."""
        assert isinstance(pl_module, PreferenceModule)
        if trainer.is_global_zero:
            _log.info("%s; activations come on top", estimate(pl_module))
