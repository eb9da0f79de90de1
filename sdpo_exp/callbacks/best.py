"""The best step by the probe, kept while training goes on: no image is drawn to find it."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from sdpo_exp.callbacks.steps import StepCallback, quantities
from sdpo_exp.errors import UserError
from sdpo_exp.training import PreferenceModule
from sdpo_exp.whole_files import write_json

Mode = Literal["max", "min"]

_log = logging.getLogger(__name__)


class Best(NamedTuple):
    """A visited step, and what was reported at it."""

    step: int
    value: float
    winner_minus_ref: float


# A `Checkpoint`, because Lightning runs those after all other callbacks, whatever the order they
# were chosen in: the probe of the same step has spoken by then.
class BestCheckpoint(StepCallback, Checkpoint):
    """`best.ckpt`: the visited step with the best value of one reported quantity, and `best.json`.

    Candidates are the steps that the probe visits, step 0 (the base) included; of equal values the
    earliest is kept. A resumed run remembers the best and brings the file along.

    Args:
        dirpath: where to.
        monitor: what is compared, by its name in metrics.csv: `probe/<quantity>`,
            `probe/t<time>/<quantity>`, `val/<quantity>` where the validation runs, or
            `eval/<metric>` where images are scored.
        mode: whether the largest or the smallest value is best.
        max_winner_minus_ref: a step whose winner drift is larger than this cannot be best, whatever
            its margin; null: any can. For `eval/` it is the probe's latest value, for the two may
            visit at different steps.
    """

    def __init__(
        self,
        dirpath: str,
        monitor: str = "probe/implicit_accuracy",
        mode: Mode = "max",
        max_winner_minus_ref: float | None = 0.002,
    ) -> None:
        super().__init__()
        self.path = Path(dirpath) / "best.ckpt"
        self.monitor, self.mode, self.max_winner_minus_ref = monitor, mode, max_winner_minus_ref
        self.best: Best | None = None
        self._drift = float("nan")

    @property
    def settings(self) -> dict[str, Any]:
        """What decides which of two steps is better."""
        names = ("monitor", "mode", "max_winner_minus_ref")
        return {name: getattr(self, name) for name in names}

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Find the best so far, and judge the step that the probe visits before training.

        Raises:
            UserError: the monitored quantity is not among those reported.
        """
        there = module.reported()
        needed = {self.monitor} | ({self._drift_name} if self._looks_at_drift else set())
        if needed - there.keys():
            raise UserError(self._no_such_monitor(there))
        self._drift = there.get(self._drift_name, self._drift)
        if trainer.is_global_zero:
            self._bring_along(Path(trainer.ckpt_path) if trainer.ckpt_path else None)
        self._judge(trainer, module)

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Judge the steps at which the monitored quantity was reported."""
        self._drift = module.reported().get(self._drift_name, self._drift)
        if self.monitor in module.reported():
            self._judge(trainer, module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say which step was best."""
        del pl_module
        if not trainer.is_global_zero:
            return
        if self.best is None:
            _log.warning(
                "callbacks.best: no best checkpoint: at every visit %s was above %s, or a value "
                "was not a number",
                self._drift_name,
                self.max_winner_minus_ref,
            )
        else:
            _log.info(
                "best step: %d (%s %.4f), in %s",
                self.best.step,
                self.monitor,
                self.best.value,
                os.path.relpath(self.path),
            )

    def state_dict(self) -> dict[str, Any]:
        """The best so far, and what made it so."""
        return {"settings": self.settings, "best": tuple(self.best) if self.best else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the best; judged by another rule it was not the best, so it is dropped."""
        if state_dict["settings"] != self.settings:
            _log.warning("callbacks.best: judged anew from here, because its settings changed")
        elif state_dict["best"] is not None:
            self.best = Best(*state_dict["best"])

    @property
    def _looks_at_drift(self) -> bool:
        """Images can be judged without a probe, where no condition asks for one."""
        return self.max_winner_minus_ref is not None or not self.monitor.startswith("eval/")

    @property
    def _drift_name(self) -> str:
        source = self.monitor.partition("/")[0]
        return f"{'probe' if source == 'eval' else source}/winner_minus_ref"

    def _no_such_monitor(self, reported: Mapping[str, float]) -> str:
        if self.monitor in reported:
            return (
                f"callbacks.best.max_winner_minus_ref looks at {self._drift_name}, which is not "
                "reported. Add probe to callbacks, or give "
                "callbacks.best.max_winner_minus_ref=null."
            )
        names = quantities(reported)
        if not names:
            return (
                "callbacks.best judges by what the probe reports, and there is no probe. Choose "
                "callbacks=[default,best], or name probe in your own list."
            )
        return (
            f"callbacks.best.monitor={self.monitor} is not reported at the visits. There are: "
            f"{', '.join(names)}; the probe's by time, probe/t<time>/<quantity>; and with "
            "callbacks=[default,images,best] eval/<metric>."
        )

    def _judge(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        visit = Best(trainer.global_step, module.reported()[self.monitor], self._drift)
        # One rank decides: a last digit that differs would leave the others waiting.
        if not trainer.strategy.broadcast(self._is_better(visit)):
            return
        self.best = visit
        partial = self.path.with_name(f"{self.path.name}.partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            partial.replace(self.path)
            self._describe()

    def _is_better(self, visit: Best) -> bool:
        limit = self.max_winner_minus_ref
        if limit is not None and not visit.winner_minus_ref <= limit:
            return False
        if self.best is None:
            return not math.isnan(visit.value)
        old, new = self.best.value, visit.value
        return new > old if self.mode == "max" else new < old

    def _describe(self) -> None:
        assert self.best is not None
        content: dict[str, Any] = {**self.settings, **self.best._asdict()}
        if math.isnan(self.best.winner_minus_ref):  # of images judged without a probe
            content["winner_minus_ref"] = None
        write_json(self.path.with_suffix(".json"), content)

    def _bring_along(self, resumed_from: Path | None) -> None:
        """Have the remembered best in this run's folder; forget one whose file is gone."""
        if self.best is not None:
            beside = [resumed_from.with_name(self.path.name)] if resumed_from else []
            for path in (self.path, *beside):
                if path.is_file() and _step_of(path) == self.best.step:
                    self._take(path)
                    return
            _log.warning(
                "callbacks.best: the file of step %d is not beside the checkpoint; the best is "
                "looked for from here on",
                self.best.step,
            )
            self.best = None
        for stale in (self.path, self.path.with_suffix(".json")):
            stale.unlink(missing_ok=True)

    def _take(self, path: Path) -> None:
        if path != self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_name(f"{self.path.name}.partial")
            shutil.copyfile(path, partial)
            partial.replace(self.path)
        self._describe()


def _step_of(checkpoint: Path) -> int:
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return int(content["global_step"])
