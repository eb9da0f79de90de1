"""Learning rates by step, and which timesteps are drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from sdpo_exp.callbacks.ends import EndsEarly
from sdpo_exp.callbacks.probe import FixedProbe
from sdpo_exp.errors import UserError
from sdpo_exp.models.flow_process import FlowProcess
from sdpo_exp.models.forward_process import VPProcess
from sdpo_exp.training.schedules import make_schedule
from tests.harness import Recorder, SmallBackbone, small_data, small_module, small_trainer


def rates(schedule: Any, warmup: int, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made = make_schedule(optimizer, schedule, warmup, steps)
    found = []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return found


def test_the_rates_are_those_of_their_formulas() -> None:
    warm = [0.0, 0.5]
    assert rates("constant", 2, 6) == [*warm, 1, 1, 1, 1, 1]
    assert rates("linear", 2, 6) == [*warm, 1, 0.75, 0.5, 0.25, 0]
    cosine = [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(5)]
    assert rates("cosine", 2, 6) == pytest.approx([*warm, *cosine])


class EndAt(EndsEarly):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_step(self, trainer: Any, module: Any) -> None:
        if trainer.global_step == self.step:
            self.end(trainer, "asked to")


class Rates(EndsEarly):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def on_step(self, trainer: Any, module: Any) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("file", ["step=2.ckpt", "last.ckpt"])
def test_a_training_that_ended_early_goes_on_as_if_it_had_not(
    tmp_path: Path, schedule: Any, file: str
) -> None:
    def fit(*callbacks: Any, checkpoint: Path | None = None) -> tuple[torch.Tensor, list[float]]:
        module, watcher = small_module(schedule=schedule), Rates()
        trainer = small_trainer(tmp_path, [watcher, *callbacks])
        trainer.fit(module, datamodule=small_data(), ckpt_path=checkpoint, weights_only=True)
        weights = nn.utils.parameters_to_vector(module.policy.parameters()).detach()
        return weights, watcher.seen

    whole, along = fit()
    assert along[-1] == 0
    _, first = fit(EndAt(3), StepCheckpoint(str(tmp_path), every_n_steps=2))
    assert first == along[:3]
    resumed, rest = fit(checkpoint=tmp_path / file)
    assert rest == along[2 if file == "step=2.ckpt" else 3 :]
    assert torch.equal(whole, resumed)


def trained_on(tmp_path: Path, **changes: Any) -> tuple[torch.Tensor, Any]:
    recorder, probe = Recorder(), FixedProbe(pairs=4, times=(0.9,), every_n_steps=6)
    trainer = small_trainer(tmp_path, [recorder, probe])
    trainer.fit(small_module(**changes), datamodule=small_data())
    return torch.cat([record.timestep for record in recorder.records]), recorder.rows[0][1]


def test_training_draws_within_its_limits_and_the_probe_stays(tmp_path: Path) -> None:
    everywhere, probed = trained_on(tmp_path)
    assert everywhere.max() > 500
    low, probed_again = trained_on(tmp_path, timesteps=(100, 200))
    assert 100 <= low.min() < 130
    assert 170 < low.max() < 200
    assert probed_again == probed
    again, _ = trained_on(tmp_path, timesteps=(0, None))
    assert torch.equal(again, everywhere)
    same, _ = trained_on(tmp_path, timesteps=(0, 1000))
    assert torch.equal(same, everywhere)


def test_limits_are_exact_for_tables_and_flows() -> None:
    uniform = torch.linspace(0, 1 - 2**-24, 5001)
    table = VPProcess(torch.linspace(0.9, 0.1, 10), "epsilon").within(3, 7)
    assert table.sample_timesteps(uniform).unique().tolist() == [3, 4, 5, 6]
    distilled = VPProcess(torch.linspace(0.9, 0.1, 10), "epsilon", [1, 4, 9]).within(2, None)
    assert distilled.sample_timesteps(uniform).unique().tolist() == [4, 9]
    times = FlowProcess().within(250, 500).sample_timesteps(uniform)
    assert (times.min(), times.max()) == (0.25, pytest.approx(0.5, abs=1e-6))


class Plain:
    """A process that takes no limits."""

    def __init__(self, inner: Any) -> None:
        self.sample_timesteps, self.add_noise = inner.sample_timesteps, inner.add_noise
        self.target = inner.target


@pytest.mark.parametrize(
    ("timesteps", "process", "message"),
    [
        ((0, 1001), None, "timesteps.max=1001: the model has 1000 training steps, 0 to 999"),
        ((1000, None), None, "timesteps.min=1000, timesteps.max=None: the model has 1000"),
        ((5, 6), "distilled", r"the model is trained on none of these: \[249, 999\]"),
        ((5, 6), "plain", "Plain takes no limits"),
    ],
)
def test_limits_that_do_not_fit_the_model_are_refused(
    timesteps: Any, process: str | None, message: str
) -> None:
    backbone: Any = SmallBackbone()
    if process == "distilled":
        table = backbone.process.alphas_cumprod
        backbone.process = VPProcess(table, "epsilon", [249, 999])
    elif process == "plain":
        backbone.process = Plain(backbone.process)
    with pytest.raises(UserError, match=message):
        small_module(backbone=backbone, timesteps=timesteps)
