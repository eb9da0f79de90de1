"""Which timesteps a training draws from, and which held-out pairs are seen at."""

from __future__ import annotations

from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.protocols import ForwardProcess


def limited(process: ForwardProcess, low: int, high: int | None) -> ForwardProcess:
    """The process with timesteps from `low` to below `high`; itself where that is all of them.

    Args:
        process: of the model; one that takes limits has `within(low, high)`.
        low, high: in the scheduler's training steps; None: to the last.

    Raises:
        UserError: the process takes no limits, has fewer steps, or draws from none of these.
    """
    if low == 0 and high is None:
        return process
    within = getattr(process, "within", None)
    if within is None:
        raise UserError(
            f"timesteps: {type(process).__name__} takes no limits; leave out timesteps.min and "
            "timesteps.max"
        )
    try:
        found: ForwardProcess = within(low, high)
    except ValueError as error:
        raise UserError(f"timesteps.min={low}, timesteps.max={high}: {error}") from None
    return found


def along_schedule(process: ForwardProcess, fractions: Tensor) -> Tensor:
    """Timesteps (B,) at fractions (B,) in [0, 1) of the schedule, whatever a training draws from.

    So probe and validation ask the same in runs of different distributions.
    """
    at = getattr(process, "at", process.sample_timesteps)
    found: Tensor = at(fractions)
    return found


def weights_at(process: ForwardProcess, t: Tensor) -> Tensor | None:
    """w(t) of the pairs' errors, (N,) as t is; None: 1."""
    weigh = getattr(process, "pair_weights", None)
    return None if weigh is None else weigh(t)
