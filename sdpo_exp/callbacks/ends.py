"""Ends before `max_steps`: by the clock, or because a held-out number grows no better."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, Literal

import lightning as L

from sdpo_exp.bounds import NonNegativeFloat, PositiveInt
from sdpo_exp.callbacks.steps import StepCallback, quantities
from sdpo_exp.durations import seconds_of
from sdpo_exp.errors import UserError
from sdpo_exp.training import PreferenceModule
from sdpo_exp.words import word

Mode = Literal["max", "min"]
# Which way is better, by the last part of a quantity's name.
_MODES: dict[str, Mode] = {
    **dict.fromkeys(("winner_minus_ref", "winner_error", "loss"), "min"),
    **dict.fromkeys(("implicit_accuracy", "margin"), "max"),
}
_log = logging.getLogger(__name__)


class EndsEarly(StepCallback):
    """A callback that may end a training at a whole optimiser step, finished and resumable.

    Attributes:
        reason: why it did, in words; None while it has not.
    """

    reason: str | None = None

    def end(self, trainer: L.Trainer, reason: str) -> None:
        """Let this optimiser step be the last one.

        Nothing happens at the step that is the last by `max_steps`.
        """
        if trainer.global_step < trainer.max_steps:
            self.reason = reason
            trainer.should_stop = True


class TimeLimit(EndsEarly):
    """Ends the training with the step in which a time is over, counted from the first step.

    To stand before all other callbacks, which then know that this step is the last.

    Args:
        max_time: as `seconds_of` reads it.
    """

    def __init__(self, max_time: str) -> None:
        super().__init__()
        self.max_time = max_time
        self._until = math.inf

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """The clock begins; that of a resumed training, too."""
        del trainer, module
        self._until = time.monotonic() + seconds_of(self.max_time)

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Look at the clock, on one rank: clocks differ."""
        del module
        if trainer.strategy.broadcast(time.monotonic() >= self._until):
            self.end(trainer, f"max_time={self.max_time} was over")


class EarlyStopping(EndsEarly):
    """Ends the training when a held-out number has not grown better for some visits.

    Step 0, the base, is the first to be better than. Runs after the callbacks that report, and
    before checkpoints, so that a resumed training counts on.

    Args:
        monitor: by its name in metrics.csv, as `probe/implicit_accuracy`, `probe/winner_minus_ref`
            or any other that the probe, the validation or `images` report.
        mode: whether larger or smaller is better; null: as the quantity means it.
        patience: visits without a better value after which training ends.
        min_delta: a value is better if it is so by more than this.
    """

    def __init__(
        self,
        monitor: str = "probe/implicit_accuracy",
        mode: Mode | None = None,
        patience: PositiveInt = 3,
        min_delta: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__()
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        found = mode or _MODES.get(monitor.rpartition("/")[2])
        if found is None:
            raise UserError(
                f"callbacks.early_stopping.monitor={monitor}: say which way is better with "
                "callbacks.early_stopping.mode=max or min"
            )
        self.mode: Mode = found
        self.best: float | None = None
        self.waited, self.best_step = 0, 0

    @property
    def settings(self) -> dict[str, Any]:
        """What decides whether a visit is better."""
        return {name: getattr(self, name) for name in ("monitor", "mode", "min_delta")}

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Look at the visit before training; a resumed training has looked at it.

        Raises:
            UserError: the monitored quantity is not among those reported.
        """
        there = module.reported()
        if self.monitor not in there:
            raise UserError(_no_such_monitor(self.monitor, list(there)))
        if self.best is None:
            self.best, self.best_step = there[self.monitor], trainer.global_step

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Count the visits at which the quantity was reported."""
        value = module.reported().get(self.monitor)
        if value is None or not trainer.strategy.broadcast(self._is_enough(trainer, value)):
            return
        waited = f"{self.waited} visit{'s' if self.waited > 1 else ''}"
        self.end(
            trainer,
            f"{word(self.monitor)} ({self.monitor}) grew no better for {waited}: {value:.4f}, "
            f"the best was {self.best:.4f} at step {self.best_step}",
        )

    def state_dict(self) -> dict[str, Any]:
        """The best so far and the visits since."""
        counted = {"best": self.best, "best_step": self.best_step, "waited": self.waited}
        return {"settings": self.settings, **counted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on; anew where the rule was another, or where it has ended the training."""
        if state_dict["settings"] != self.settings:
            _log.warning("callbacks.early_stopping: judged anew, because its settings changed")
            return
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
        self.waited = state_dict["waited"] if state_dict["waited"] < self.patience else 0

    def _is_enough(self, trainer: L.Trainer, value: float) -> bool:
        assert self.best is not None, "looked at before the first step"
        gain = value - self.best if self.mode == "max" else self.best - value
        # Nothing is better than what is not a number, but anything that is one.
        if gain > self.min_delta or (math.isnan(self.best) and not math.isnan(value)):
            self.best, self.best_step, self.waited = value, trainer.global_step, 0
        else:
            self.waited += 1
        return self.waited >= self.patience


def _no_such_monitor(monitor: str, reported: list[str]) -> str:
    names = quantities(reported)
    there = f"There are: {', '.join(names)}" if names else "Add probe to callbacks"
    return f"callbacks.early_stopping.monitor={monitor} is not reported at the visits. {there}."
