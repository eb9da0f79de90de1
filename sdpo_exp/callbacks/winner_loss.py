"""The trajectory that matters: is the preferred image getting better or worse?"""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor

from sdpo_exp.callbacks.window import WindowCallback
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import StepRecord


class WinnerLossTrajectory(WindowCallback):
    """Loss, winner and loser errors and drifts, margin, implicit accuracy.

    Errors are means over the window's pairs. `pair/margin` is -Delta; `pair/implicit_accuracy`
    the share of pairs with Delta < 0, ties half. Objectives with a finite target margin (`dmpo`,
    `ipo`) also get `pair/beyond_target`: the share whose gradient has turned round.
    """

    def on_window(self, trainer: L.Trainer, module: PreferenceModule, window: StepRecord) -> None:
        """Report means over the window, in one host read."""
        values = trajectory(window)
        target = getattr(module.objective, "target_logit", None)
        if target is not None:
            values["pair/beyond_target"] = (window.logits > target).float().mean()
        read = torch.stack(list(values.values())).tolist()
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        module.report({**dict(zip(values, read, strict=True)), "train/lr": rate})


def trajectory(window: StepRecord) -> dict[str, Tensor]:
    """Device-side scalars () of a window."""
    winner = window.winner_error - window.winner_ref_error
    loser = window.loser_error - window.loser_ref_error
    delta = winner - loser
    return {
        "train/loss": window.loss.mean(),
        "pair/winner_error": window.winner_error.mean(),
        "pair/loser_error": window.loser_error.mean(),
        "pair/winner_minus_ref": winner.mean(),
        "pair/loser_minus_ref": loser.mean(),
        "pair/margin": (loser - winner).mean(),
        "pair/implicit_accuracy": implicit_accuracy(delta),
    }


def implicit_accuracy(delta: Tensor) -> Tensor:
    """Share of Delta (B,) below 0, exact ties counted half."""
    return 0.5 * (1.0 - torch.sign(delta)).mean()
