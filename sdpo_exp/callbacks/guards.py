"""Guards: a wrong start is told loudly, a diverged run stops before it overwrites a good one."""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning as L
import torch
from torch import Tensor

from sdpo_exp.bounds import PositiveFloat, PositiveInt
from sdpo_exp.callbacks.steps import StepCallback
from sdpo_exp.errors import UserError
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import PairBatch, StepRecord

_log = logging.getLogger(__name__)


class StartupCheck(StepCallback):
    """At step 0 policy and reference must agree: u = 0, and with `dpo` a loss of ln 2.

    Args:
        tolerance: largest |u| that passes. float32 errors give exactly 0; a reference in half
            precision moves u by about 0.5 at beta 5000.
    """

    def __init__(self, tolerance: PositiveFloat = 1e-3) -> None:
        super().__init__()
        self.tolerance = tolerance
        self._fresh = False

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """A resumed policy has moved already."""
        del module
        self._fresh = trainer.global_step == 0

    def on_micro_batch(
        self, trainer: L.Trainer, module: PreferenceModule, record: StepRecord, batch: PairBatch
    ) -> None:
        """Look at the first micro-batch; its predictions precede any update."""
        del trainer, module, batch
        if not self._fresh:
            return
        self._fresh = False
        logit = float(record.logits.abs().max())
        if not logit <= self.tolerance:
            _log.warning(
                "START-UP CHECK FAILED: before the first update policy and reference should agree "
                "(u = 0; a dpo loss of ln 2 = %.4f), but max |u| = %.3g and the mean loss is %.4f. "
                "Look at the reference's dtype and at any dropout in the policy.",
                math.log(2),
                logit,
                float(record.loss.mean()),
            )


class DivergenceGuard(StepCallback):
    """Stops the run on non-finite or exploding values; the last good checkpoint stays.

    The step only keeps flags on the device. They are read every `every_n_steps` optimiser steps,
    and before any checkpoint is written.

    Args:
        every_n_steps: optimiser steps between two reads.
        max_error_ratio: stop when the winners' mean error exceeds this multiple of the
            reference's.
    """

    def __init__(
        self, every_n_steps: PositiveInt = 10, max_error_ratio: PositiveFloat = 10.0
    ) -> None:
        super().__init__(every_n_steps)
        self.max_error_ratio = max_error_ratio
        self._finite: Tensor | None = None
        self._ratio: Tensor | None = None

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Flag non-finite gradients, before clipping spreads them.

        Not under a loss scale: it is found by trying, and a step whose gradients overflow is one
        that its scaler leaves out.
        """
        del pl_module
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        grads = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        if grads:
            self._flag(torch.isfinite(torch.nn.utils.get_total_norm(grads)))

    def on_micro_batch(
        self, trainer: L.Trainer, module: PreferenceModule, record: StepRecord, batch: PairBatch
    ) -> None:
        """Keep flags, on the device."""
        del trainer, module, batch
        self._flag(record.finite)
        ratio = record.winner_error.mean() / record.winner_ref_error.mean()
        self._ratio = ratio if self._ratio is None else torch.maximum(self._ratio, ratio)

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Read the flags when due."""
        if self.due(trainer, at_end=True):
            self._read(trainer, module)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to save a state that is already lost."""
        del checkpoint
        assert isinstance(pl_module, PreferenceModule)
        self._read(trainer, pl_module)

    def _flag(self, finite: Tensor) -> None:
        self._finite = finite if self._finite is None else self._finite & finite

    def _read(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        step = trainer.global_step
        weights = torch.nn.utils.get_total_norm([p.detach() for p in module.policy.parameters()])
        if self._finite is not None and not bool(self._finite & torch.isfinite(weights)):
            raise UserError(_message(step, "errors, gradients or weights are not finite"))
        if self._ratio is not None and float(self._ratio) > self.max_error_ratio:
            reason = f"the winners' error is {float(self._ratio):.1f} times the reference's"
            raise UserError(_message(step, reason))
        self._ratio = None


def _message(step: int, reason: str) -> str:
    return (
        f"stopped at optimiser step {step}: {reason}. The last checkpoint written before this is "
        "kept. Try safeguard=on, a lower lr, a longer warmup_steps or a smaller recipe.beta; "
        "callbacks.guard sets the limits."
    )
