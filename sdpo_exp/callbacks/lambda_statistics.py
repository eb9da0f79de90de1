"""How hard the safeguard works."""

from __future__ import annotations

import lightning as L
import torch

from sdpo_exp.callbacks.window import WindowCallback
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import StepRecord


class LambdaStatistics(WindowCallback):
    """Mean, extremes, quantiles and active share of lambda, and the residuals' cosine.

    `safeguard/lambda_active` is the share of pairs with lambda < 1.
    `safeguard/lambda_would_be` is the mean lambda that the recipe's safeguard would have applied,
    so that curves with the safeguard off and on compare.
    """

    def on_window(self, trainer: L.Trainer, module: PreferenceModule, window: StepRecord) -> None:
        """Report statistics over the window, in one host read."""
        del trainer
        lambdas = window.lambda_safe.float()
        p10, p50, p90 = torch.quantile(lambdas, lambdas.new_tensor([0.1, 0.5, 0.9]))
        values = {
            "safeguard/lambda_mean": lambdas.mean(),
            "safeguard/lambda_min": lambdas.min(),
            "safeguard/lambda_max": lambdas.max(),
            "safeguard/lambda_p10": p10,
            "safeguard/lambda_p50": p50,
            "safeguard/lambda_p90": p90,
            "safeguard/lambda_active": (lambdas < 1).float().mean(),
            "safeguard/lambda_would_be": window.lambda_would_be.mean(),
            "safeguard/cosine": window.cosine.mean(),
        }
        read = torch.stack(list(values.values())).tolist()
        module.report(dict(zip(values, read, strict=True)))
