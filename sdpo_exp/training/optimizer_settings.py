"""What an optimiser was made with stays in force when a checkpoint brings another's settings.

Lightning restores the groups' settings with the moments, so a learning rate or weight decay given
for a training that goes on would be read and ignored.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

Settings = list[dict[str, Any]]


def settings_of(optimizer: Optimizer) -> Settings:
    """Every group's settings, without its parameters; `initial_lr` is the final rate."""
    return [
        {key: value for key, value in group.items() if key not in ("params", "lr")}
        for group in optimizer.param_groups
    ]


def put_back(optimizer: Optimizer, schedule: Any, settings: Settings) -> None:
    """Set every group to `settings`, and its learning rate to where the schedule has come.

    Args:
        optimizer: as a checkpoint left it.
        schedule: a `LambdaLR` over it.
        settings: as `settings_of` had them; what is alike stays alike to the bit.
    """
    for group, ours in zip(optimizer.param_groups, settings, strict=True):
        group.update(ours)
    schedule.base_lrs = [ours["initial_lr"] for ours in settings]
    factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
    rates = [base * factor for base, factor in zip(schedule.base_lrs, factors, strict=True)]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates
