"""An exponential moving average of what is trained, beside the weights that are trained."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import lightning as L
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from sdpo_exp.bounds import HalfOpenUnit, PositiveFloat, PositiveInt
from sdpo_exp.callbacks.steps import StepCallback
from sdpo_exp.errors import UserError
from sdpo_exp.training import PreferenceModule

Place = Literal["auto", "cpu"]

_POLICY = "policy."
_log = logging.getLogger(__name__)


class PolicyEMA(StepCallback):
    """Averages the trained parameters (with adapters: those alone) in float32, by diffusers.

    Update n (n = 1, 2, ...) sets average = d average + (1 - d) weights, where d is 0 for the first
    and then grows to `decay`: as n / (9 + n), or with `warmup_power` as
    1 - (1 + (n - 1) / warmup_inv_gamma) ** -warmup_power.

    A checkpoint holds the weights as trained and the average beside them (`averaged_state`).

    Args:
        decay: the largest d; about 1 / (1 - decay) updates are averaged.
        warmup_power: null for n / (9 + n). 2/3 suits very long runs, 3/4 shorter ones, and 1
            (with inv_gamma 1) is the plain mean until `decay` is reached.
        warmup_inv_gamma: updates that the warm-up is stretched by; counts with `warmup_power` only.
        every_n_steps: optimiser steps between two updates.
        device: where the average lies; cpu spares the accelerator one float32 copy of what is
            trained, for a transfer per update.
        export: the run's model, and the comparison with the base, take the averaged weights.
    """

    def __init__(
        self,
        decay: HalfOpenUnit = 0.9999,
        warmup_power: PositiveFloat | None = None,
        warmup_inv_gamma: PositiveFloat = 1.0,
        every_n_steps: PositiveInt = 1,
        device: Place = "auto",
        export: bool = True,
    ) -> None:
        super().__init__(every_n_steps)
        self.decay, self.device, self.export = decay, device, export
        self.warmup_power, self.warmup_inv_gamma = warmup_power, warmup_inv_gamma
        self._ema: Any = None
        self._names: list[str] = []
        self._loaded: dict[str, Any] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the average's numbers, so that a resumed run must share it."""
        return {
            "decay": self.decay,
            "warmup_power": self.warmup_power,
            "warmup_inv_gamma": self.warmup_inv_gamma,
            "every_n_steps": self.every_n_steps,
        }

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the weights as they are, or go on with the checkpoint's average."""
        del trainer
        trained = _trained(pl_module)
        self._names = list(trained)
        self._ema = EMAModel(
            [self._placed(parameter) for parameter in trained.values()],
            decay=self.decay,
            use_ema_warmup=self.warmup_power is not None,
            inv_gamma=self.warmup_inv_gamma,
            power=self.warmup_power or 1.0,
            foreach=True,
        )
        if self._loaded:
            updates, averaged = self._loaded["updates"], self._loaded["averaged"]
            begun = zip(self._names, self._ema.shadow_params, strict=True)
            shadow = [averaged[name].to(tensor.device) for name, tensor in begun]
            self._ema.load_state_dict({"optimization_step": updates, "shadow_params": shadow})

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to("cpu" if self.device == "cpu" else None, torch.float32)

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Say so where a resumed run finds no average."""
        del module
        if trainer.global_step and not self._loaded and trainer.is_global_zero:
            _log.warning(
                "callbacks.ema: the checkpoint holds no averaged weights; the average begins at "
                "step %d",
                trainer.global_step,
            )

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Update at the optimiser steps that are due; the last alone is no reason for one."""
        if self.due(trainer):
            # Parameters again: EMAModel copies what needs no gradient instead of averaging it.
            weights = [nn.Parameter(self._placed(p)) for p in _trained(module).values()]
            self._ema.step(weights)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """With `export`, leave the average in the policy: all checkpoints are written by now.

        Also where nothing was left to train, because a resumed run only judges its images.
        """
        if not self.export:
            return
        if self._ema.optimization_step == 0:
            if trainer.is_global_zero:
                _log.warning("callbacks.ema: nothing was averaged; the weights are exported as is")
            return
        self._ema.copy_to(_trained(pl_module).values())
        if trainer.is_global_zero:
            _log.info(
                "the exported weights are an average of %d updates; callbacks.ema.export=false "
                "takes the last",
                self._ema.optimization_step,
            )

    @contextmanager
    def applied(self, module: L.LightningModule) -> Iterator[None]:
        """The averaged weights in the policy, and the trained ones back in it afterwards."""
        parameters = list(_trained(module).values())
        self._ema.store(parameters)
        self._ema.copy_to(parameters)
        try:
            yield
        finally:
            self._ema.restore(parameters)

    def state_dict(self) -> dict[str, Any]:
        """Settings, number of updates and average by parameter name."""
        if self._ema is None:
            return {}
        averaged = dict(zip(self._names, self._ema.shadow_params, strict=True))
        updates = self._ema.optimization_step
        return {"settings": self.settings, "updates": updates, "averaged": averaged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the average for `on_fit_start`.

        Raises:
            UserError: it was made with other settings.
        """
        theirs, mine = state_dict["settings"], self.settings
        changed = [f"{k}: {theirs.get(k)} -> {mine[k]}" for k in mine if theirs.get(k) != mine[k]]
        if changed:
            raise UserError(
                "resume: the checkpoint's averaged weights were made with other settings of "
                f"callbacks.ema ({'; '.join(changed)}). Give the same values, or leave out "
                "callbacks=ema."
            )
        self._loaded = state_dict


def averaged_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """State dict of the policy with averaged weights, from a loaded training checkpoint.

    Names and dtypes are those of the checkpoint's own weights, which are the policy's as far as it
    is trained. None where the checkpoint holds no average, or one of no updates.
    """
    state = checkpoint.get("callbacks", {}).get(PolicyEMA.__qualname__)
    if not state or not state["updates"]:
        return None
    policy = {
        name.removeprefix(_POLICY): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(_POLICY)
    }
    return policy | {n: value.to(policy[n].dtype) for n, value in state["averaged"].items()}


def _trained(module: L.LightningModule) -> dict[str, nn.Parameter]:
    assert isinstance(module, PreferenceModule)
    return {name: p for name, p in module.policy.named_parameters() if p.requires_grad}
