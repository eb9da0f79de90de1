"""The learning rate along a training: a linear warm-up, then constant or down to 0."""

from __future__ import annotations

from typing import Literal

from diffusers.optimization import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Schedule = Literal["constant", "linear", "cosine"]


def make_schedule(
    optimizer: Optimizer, schedule: Schedule, warmup_steps: int, max_steps: int
) -> LambdaLR:
    """Factors of the groups' learning rates by optimiser step; a function of the step alone.

    Args:
        optimizer: whose groups have their final learning rates.
        schedule: after the warm-up; `linear` and `cosine` (half a period) reach 0 at `max_steps`.
        warmup_steps: from 0, linear.
        max_steps: of the whole training, warm-up included.
    """
    if schedule == "constant":
        return get_constant_schedule_with_warmup(optimizer, warmup_steps)
    down = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}
    made: LambdaLR = down[schedule](optimizer, warmup_steps, max_steps)
    return made
