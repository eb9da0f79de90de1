"""Small problems: gradients that disagree, optimisers with a past, runs of a rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from sdpo_exp.rules.flat import write_gradient
from sdpo_exp.rules.window import WindowGradients
from sdpo_exp.training import PreferenceModule
from sdpo_exp.training.records import halves
from tests.harness import Recorder, small_data, small_module, small_trainer

OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, weight_decay=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, dampening=0.2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
}


def gradients(size: int = 12, seed: int = 0) -> WindowGradients:
    """Random G_w, G_l and G_A that mostly agree, so that losers do harm."""
    generator = torch.Generator().manual_seed(seed)
    shared, one, two, three = torch.randn(4, size, generator=generator)
    return WindowGradients(shared + 0.5 * one, -(shared + 0.5 * two), shared + 0.5 * three)


def two_groups(kind: str, steps: int = 3, seed: int = 0) -> torch.optim.Optimizer:
    """An optimiser of 12 elements in two groups of other rates, after some steps."""
    generator = torch.Generator().manual_seed(seed)
    first = [nn.Parameter(torch.randn(s, generator=generator)) for s in ((2, 3), (2,))]
    second = [nn.Parameter(torch.randn(4, generator=generator))]
    optimizer = OPTIMISERS[kind]([{"params": first}, {"params": second, "lr": 3e-2}])
    for _ in range(steps):
        write_gradient(torch.randn(12, generator=generator), first + second)
        optimizer.step()
    return optimizer


class Changes(L.Callback):
    """What each step did to its winners' mean error, and the lambda that it had."""

    def __init__(self) -> None:
        self.changes: list[float] = []
        self.lambdas: list[float] = []

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        after = pl_module.winner_error(*halves(*pl_module.draw(batch))[0])
        self.changes.append(float(after - outputs["record"].winner_error.mean()))
        self.lambdas.append(float(outputs["record"].lambda_safe[0]))


def fitted(folder: Path, **changes: Any) -> tuple[PreferenceModule, Recorder, Tensor]:
    """A small run: its module, what it recorded, and its weights (P,)."""
    data, trainer = changes.pop("data", {}), changes.pop("trainer", {})
    recorder, module = Recorder(), small_module(**changes)
    callbacks = [recorder, *trainer.pop("callbacks", [])]
    fit = small_trainer(folder, callbacks, **trainer)
    fit.fit(module, datamodule=small_data(**data))
    weights = nn.utils.parameters_to_vector(module.policy.parameters()).detach()
    return module, recorder, weights
