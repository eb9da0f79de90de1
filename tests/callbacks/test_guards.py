"""A wrong start is told, a diverged run stops and keeps its last good checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from sdpo_exp.callbacks.guards import DivergenceGuard, StartupCheck
from sdpo_exp.errors import UserError
from sdpo_exp.models.reference import FrozenReference
from sdpo_exp.objectives.dpo import DPO
from tests.harness import Recorder, small_data, small_module, small_trainer


def fit(folder: Path, *callbacks: Any, steps: int = 6, **module: Any) -> Any:
    trainer = small_trainer(folder, callbacks, max_steps=steps)
    trainer.fit(small_module(**module), datamodule=small_data())
    return trainer


def test_a_sound_start_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sdpo_exp"):
        fit(tmp_path, StartupCheck(), steps=1)
    assert "START-UP" not in caplog.text


def test_a_half_precision_reference_is_told_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Cast(FrozenReference):
        """bf16 weights, as the public code has them, run in float32 here."""

        def attach(self, denoiser: Any) -> None:
            super().attach(denoiser)
            assert self._network is not None
            self._network.float()

    module = {"reference": Cast("bfloat16"), "objective": DPO(beta=5000.0)}
    with caplog.at_level(logging.WARNING, logger="sdpo_exp"):
        fit(tmp_path, StartupCheck(), steps=1, **module)
    assert "START-UP CHECK FAILED" in caplog.text
    assert "reference's dtype" in caplog.text


class Poison(Recorder):
    """Makes one weight `value` after `step`."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__()
        self.step, self.value = step, value

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                pl_module.policy.last.weight.fill_(self.value)


@pytest.mark.parametrize(
    ("value", "reason"), [(float("nan"), "not finite"), (1e4, "times the reference's")]
)
def test_a_diverged_run_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, value: float, reason: str
) -> None:
    saver = StepCheckpoint(str(tmp_path), every_n_steps=2)
    with pytest.raises(UserError, match=reason) as error:
        fit(tmp_path, DivergenceGuard(every_n_steps=100), saver, Poison(4, value))
    assert "last checkpoint" in str(error.value)
    kept = torch.load(tmp_path / "step=4.ckpt", weights_only=True)
    assert kept["global_step"] == 4
    assert all(torch.isfinite(v).all() for v in kept["state_dict"].values())
    assert not (tmp_path / "last.ckpt").exists()


def test_non_finite_gradients_stop_the_run_before_errors_show_it(tmp_path: Path) -> None:
    class Break(Recorder):
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            if trainer.global_step == 2:
                next(pl_module.policy.parameters()).grad.fill_(float("inf"))

    with pytest.raises(UserError, match=r"step 3.*not finite"):
        fit(tmp_path, DivergenceGuard(every_n_steps=1), Break())


def test_gradients_that_overflow_under_a_loss_scale_are_the_scalers_business(
    tmp_path: Path,
) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)  # infinite in float16
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    guard = DivergenceGuard(every_n_steps=1)
    trainer = small_trainer(tmp_path, [guard], plugins=[plugin])
    trainer.fit(small_module(), datamodule=small_data())
    assert trainer.global_step == 6
    assert scaler.get_scale() < 2.0**100


def test_a_healthy_run_passes_the_guard(tmp_path: Path) -> None:
    assert fit(tmp_path, DivergenceGuard(every_n_steps=1)).global_step == 6
