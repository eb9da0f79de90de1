"""The average of the trained weights: its numbers, its checkpoint, its export."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from sdpo_exp.callbacks.ema import PolicyEMA, averaged_state
from sdpo_exp.callbacks.steps import StepCallback
from sdpo_exp.errors import UserError
from tests.harness import small_data, small_module, small_trainer

EXACT = {"rtol": 0.0, "atol": 0.0}


class Weights(StepCallback):
    """The trained weights after every optimiser step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Tensor]] = []

    def on_step(self, trainer: Any, module: Any) -> None:
        self.seen.append(weights(module))


class OnlyTheLastLayer:
    """A tuning that trains a part, as adapters do."""

    def apply(self, denoiser: Any) -> None:
        denoiser.requires_grad_(False)
        denoiser.last.requires_grad_(True)

    def prepare(self, network: Any) -> None:
        del network


def weights(module: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.policy.named_parameters()}


def fit(
    folder: Path, *callbacks: Any, module: Any = None, resume: Path | None = None, steps: int = 5
) -> Any:
    module = module or small_module()
    trainer = small_trainer(folder, callbacks, max_steps=steps)
    data = small_data(max_steps=steps)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return module


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def by_hand(seen: list[dict[str, Tensor]], decays: list[float]) -> dict[str, Tensor]:
    average = dict(seen[0])
    for row, decay in zip(seen, decays, strict=True):
        average = {k: decay * average[k] + (1 - decay) * row[k] for k in row}
    return average


@pytest.mark.parametrize(
    ("options", "decays"),
    [
        ({}, [0, 2 / 11, 3 / 12, 4 / 13, 5 / 14]),
        ({"decay": 0.2}, [0, 2 / 11, 0.2, 0.2, 0.2]),
        ({"warmup_power": 1.0}, [0, 1 / 2, 2 / 3, 3 / 4, 4 / 5]),
        (
            {"warmup_power": 0.5, "warmup_inv_gamma": 4.0},
            [0, *(1 - (1 + k / 4) ** -0.5 for k in (1, 2, 3, 4))],
        ),
    ],
    ids=["default", "capped", "plain mean", "stretched"],
)
def test_the_average_is_the_documented_one(
    tmp_path: Path, options: dict[str, Any], decays: list[float]
) -> None:
    watcher, saver = Weights(), StepCheckpoint(str(tmp_path))
    fit(tmp_path, PolicyEMA(**options), watcher, saver)
    averaged = averaged_state(load(tmp_path / "last.ckpt"))
    assert averaged is not None
    for name, expected in by_hand(watcher.seen, decays).items():
        torch.testing.assert_close(averaged[name], expected, rtol=1e-5, atol=1e-7)


def test_updates_are_per_optimiser_step_and_may_be_rarer(tmp_path: Path) -> None:
    # Two micro-batches per step, so ten of them here.
    for every, updates in ((1, 5), (2, 2)):
        folder = tmp_path / str(every)
        fit(folder, PolicyEMA(every_n_steps=every), StepCheckpoint(str(folder)))
        state = load(folder / "last.ckpt")["callbacks"]["PolicyEMA"]
        assert state["updates"] == updates


def test_only_what_is_trained_is_averaged(tmp_path: Path) -> None:
    module = small_module(tuning=OnlyTheLastLayer())
    untouched = weights(module)
    fit(tmp_path, PolicyEMA(), StepCheckpoint(str(tmp_path)), module=module)
    checkpoint = load(tmp_path / "last.ckpt")
    averaged = checkpoint["callbacks"]["PolicyEMA"]["averaged"]
    assert set(averaged) == {"last.weight", "last.bias"}
    state = averaged_state(checkpoint)
    assert state is not None
    assert {f"policy.{name}" for name in state} == set(checkpoint["state_dict"])
    for name, exported in weights(module).items():
        assert torch.equal(exported, state.get(name, untouched[name]))


def test_the_exported_policy_is_the_average_and_the_checkpoint_has_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = weights(fit(tmp_path / "plain"))
    with caplog.at_level(logging.INFO, logger="sdpo_exp"):
        module = fit(tmp_path, PolicyEMA(), StepCheckpoint(str(tmp_path)))
    assert "the exported weights are an average of 5 updates" in caplog.text
    checkpoint = load(tmp_path / "last.ckpt")
    averaged = averaged_state(checkpoint)
    assert averaged is not None
    for name, exported in weights(module).items():
        assert torch.equal(checkpoint["state_dict"][f"policy.{name}"], raw[name])
        assert torch.equal(exported, averaged[name])
        assert not torch.equal(exported, raw[name])


def test_without_export_the_run_ends_as_it_would_have(tmp_path: Path) -> None:
    raw = weights(fit(tmp_path / "plain"))
    ours = weights(fit(tmp_path, PolicyEMA(export=False)))
    torch.testing.assert_close(ours, raw, **EXACT)


@pytest.mark.parametrize("options", [{}, {"device": "cpu", "every_n_steps": 2}], ids=str)
def test_a_resumed_average_is_the_uninterrupted_one(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    whole = fit(tmp_path, PolicyEMA(**options), StepCheckpoint(str(tmp_path / "whole")))
    part = tmp_path / "part"
    fit(tmp_path, PolicyEMA(**options), StepCheckpoint(str(part)), steps=3)
    saver = StepCheckpoint(str(tmp_path / "resumed"))
    module = fit(tmp_path, PolicyEMA(**options), saver, resume=part / "last.ckpt")
    torch.testing.assert_close(weights(module), weights(whole), **EXACT)
    ours, theirs = load(tmp_path / "resumed/last.ckpt"), load(tmp_path / "whole/last.ckpt")
    torch.testing.assert_close(
        ours["callbacks"]["PolicyEMA"], theirs["callbacks"]["PolicyEMA"], **EXACT
    )
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], **EXACT)


def test_a_run_resumed_at_its_last_step_exports_the_average_too(tmp_path: Path) -> None:
    whole = fit(tmp_path, PolicyEMA(), StepCheckpoint(str(tmp_path)))
    again = fit(tmp_path, PolicyEMA(), resume=tmp_path / "last.ckpt")
    torch.testing.assert_close(weights(again), weights(whole), **EXACT)


def test_other_settings_cannot_continue_an_average(tmp_path: Path) -> None:
    fit(tmp_path, PolicyEMA(decay=0.9), StepCheckpoint(str(tmp_path)), steps=2)
    with pytest.raises(UserError, match=r"callbacks.ema \(decay: 0.9 -> 0.99\)\. Give the same"):
        fit(tmp_path, PolicyEMA(decay=0.99), resume=tmp_path / "last.ckpt")
    fit(tmp_path, PolicyEMA(decay=0.9, device="cpu", export=False), resume=tmp_path / "last.ckpt")


def test_a_checkpoint_without_an_average_is_told_and_begins_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path, StepCheckpoint(str(tmp_path)), steps=2)
    assert averaged_state(load(tmp_path / "last.ckpt")) is None
    watcher = Weights()
    module = fit(tmp_path, PolicyEMA(), watcher, resume=tmp_path / "last.ckpt")
    assert "holds no averaged weights; the average begins at step 2" in caplog.text
    expected = by_hand(watcher.seen, [0, 2 / 11, 3 / 12])
    torch.testing.assert_close(weights(module), expected, rtol=1e-5, atol=1e-7)


def test_an_average_of_nothing_is_neither_exported_nor_offered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = weights(fit(tmp_path / "plain"))
    module = fit(tmp_path, PolicyEMA(every_n_steps=100), StepCheckpoint(str(tmp_path)))
    torch.testing.assert_close(weights(module), raw, **EXACT)
    assert "nothing was averaged" in caplog.text
    assert averaged_state(load(tmp_path / "last.ckpt")) is None


def test_half_precision_weights_have_a_float32_average(tmp_path: Path) -> None:
    module = small_module()
    module.policy.to(torch.bfloat16)
    ema = PolicyEMA(warmup_power=1.0)
    ema.on_fit_start(None, module)  # type: ignore[arg-type]
    trainer: Any = type("AtStep", (), {"global_step": 1, "max_steps": 3, "is_global_zero": False})
    for value in (1.0, 1.0, 1.0078125):
        for parameter in module.policy.parameters():
            parameter.data.fill_(value)
        ema.on_step(trainer, module)
    averaged = ema.state_dict()["averaged"]
    assert {value.dtype for value in averaged.values()} == {torch.float32}
    expected = torch.full_like(averaged["last.bias"], 1 + 0.0078125 / 3)
    torch.testing.assert_close(averaged["last.bias"], expected)
    ema.on_fit_end(trainer, module)
    assert {p.dtype for p in module.policy.parameters()} == {torch.bfloat16}


def test_the_average_can_be_looked_through_for_a_while(tmp_path: Path) -> None:
    class Look(StepCallback):
        def on_step(self, trainer: Any, module: Any) -> None:
            before = weights(module)
            with ema.applied(module):
                inside.append(weights(module))
            torch.testing.assert_close(weights(module), before, **EXACT)

    inside: list[dict[str, Tensor]] = []
    ema = PolicyEMA()
    module = fit(tmp_path, ema, Look())
    torch.testing.assert_close(inside[-1], weights(module), **EXACT)
