"""The training step and what Lightning does with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from sdpo_exp.callbacks.winner_loss import WinnerLossTrajectory
from sdpo_exp.errors import UserError
from sdpo_exp.models.reference import FrozenReference
from sdpo_exp.objectives.dmpo import DMPO
from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.objectives.dspo import DSPO
from sdpo_exp.safeguard import NoSafeguard, PreserveWinner
from sdpo_exp.types import LossParts
from tests.harness import Recorder, small_data, small_module, small_trainer


def weights_after(folder: Path, *, module: Any = None, data: Any = None, **trainer: Any) -> Any:
    module = module or small_module()
    recorder = Recorder()
    fit = small_trainer(folder, [recorder, *trainer.pop("callbacks", [])], **trainer)
    fit.fit(module, datamodule=data or small_data())
    return nn.utils.parameters_to_vector(module.policy.parameters()).detach(), recorder


def test_policy_equals_reference_before_the_first_update(tmp_path: Path) -> None:
    _, recorder = weights_after(tmp_path, max_steps=1)
    assert torch.equal(recorder.records[0].logits, torch.zeros(4))
    assert torch.allclose(recorder.records[0].loss, torch.tensor(math.log(2)))


def test_bf16_autocast_keeps_the_logit_at_zero_and_the_masters_float32(tmp_path: Path) -> None:
    module = small_module(objective=DPO(beta=5000.0))
    _, recorder = weights_after(tmp_path, module=module, max_steps=1, precision="bf16-mixed")
    assert torch.equal(recorder.records[0].logits, torch.zeros(4))
    assert recorder.records[0].winner_error.dtype == torch.float32
    assert {p.dtype for p in module.policy.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "safeguard", [PreserveWinner(mu=0.9, scope="pair"), NoSafeguard(would_be_mu=0.9)]
)
def test_accumulation_equals_one_large_batch(tmp_path: Path, safeguard: Any) -> None:
    runs = {}
    for micro in (8, 4, 2):
        module = small_module(safeguard=safeguard)
        runs[micro], _ = weights_after(tmp_path, module=module, data=small_data(micro_batch=micro))
    assert (runs[8] - runs[4]).abs().max() < 1e-6
    assert (runs[8] - runs[2]).abs().max() < 1e-6


def test_the_microbatch_scope_does_depend_on_the_layout(tmp_path: Path) -> None:
    lambdas = []
    for micro in (8, 2):
        module = small_module(safeguard=PreserveWinner(mu=0.9, scope="microbatch"))
        data = small_data(micro_batch=micro)
        _, recorder = weights_after(tmp_path, module=module, data=data, max_steps=1)
        lambdas.append(torch.cat([r.lambda_safe for r in recorder.records]))
    assert not torch.allclose(lambdas[0], lambdas[1])


def test_every_step_has_the_exact_effective_batch(tmp_path: Path) -> None:
    # 20 pairs and 8 per step: the third step's window crosses the epoch's end.
    _, recorder = weights_after(tmp_path)
    stream = [(key.epoch, key.position) for keys in recorder.keys for key in keys]
    assert stream == [divmod(i, 20) for i in range(6 * 8)]


def test_a_seed_fixes_everything_and_another_changes_it(tmp_path: Path) -> None:
    first, _ = weights_after(tmp_path)
    again, _ = weights_after(tmp_path)
    other, _ = weights_after(tmp_path, module=small_module(seed=1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_resumed_run_is_the_uninterrupted_run(tmp_path: Path) -> None:
    whole, whole_log = weights_after(tmp_path / "whole")
    saver = StepCheckpoint(str(tmp_path / "part"), every_n_steps=3)
    weights_after(tmp_path / "part", data=small_data(max_steps=3), max_steps=3, callbacks=[saver])
    module, recorder = small_module(), Recorder()
    trainer = small_trainer(tmp_path, [recorder])
    trainer.fit(
        module,
        datamodule=small_data(),
        ckpt_path=tmp_path / "part" / "step=3.ckpt",
        weights_only=True,
    )
    resumed = nn.utils.parameters_to_vector(module.policy.parameters()).detach()
    assert torch.equal(whole, resumed)
    assert recorder.keys == whole_log.keys[6:]
    assert trainer.global_step == 6


def test_the_end_of_a_run_can_be_continued(tmp_path: Path) -> None:
    whole, _ = weights_after(tmp_path / "whole")
    saver = StepCheckpoint(str(tmp_path / "part"), every_n_steps=100)
    weights_after(tmp_path / "part", data=small_data(max_steps=4), max_steps=4, callbacks=[saver])
    module = small_module()
    trainer = small_trainer(tmp_path)
    last = tmp_path / "part" / "last.ckpt"
    trainer.fit(module, datamodule=small_data(), ckpt_path=last, weights_only=True)
    assert torch.equal(whole, nn.utils.parameters_to_vector(module.policy.parameters()).detach())


@pytest.mark.parametrize(
    "changes",
    [{"seed": 3}, {"effective_batch": 4}, {"train": "other"}],
    ids=lambda c: next(iter(c)),
)
def test_resuming_another_stream_of_pairs_is_refused(tmp_path: Path, changes: Any) -> None:
    from tests.harness import RandomPairs

    saver = StepCheckpoint(str(tmp_path), every_n_steps=2)
    weights_after(tmp_path, data=small_data(max_steps=2), max_steps=2, callbacks=[saver])
    if changes.get("train"):
        changes = {"train": RandomPairs(20, seed=9)}
    with pytest.raises(UserError, match="resume: the checkpoint was made with other settings"):
        small_trainer(tmp_path).fit(
            small_module(),
            datamodule=small_data(**changes),
            ckpt_path=tmp_path / "last.ckpt",
            weights_only=True,
        )


def test_a_checkpoint_holds_the_policy_and_nothing_frozen(tmp_path: Path) -> None:
    saver = StepCheckpoint(str(tmp_path), every_n_steps=2)
    module = small_module()
    weights_after(tmp_path, module=module, max_steps=2, callbacks=[saver])
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert set(state) == {f"policy.{name}" for name in module.policy.state_dict()}


def test_checkpoints_fall_on_whole_steps(tmp_path: Path) -> None:
    saver = StepCheckpoint(str(tmp_path), every_n_steps=2, keep_all=True)
    weights_after(tmp_path, data=small_data(micro_batch=2), callbacks=[saver])
    names = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    assert names == ["last.ckpt", "step=2.ckpt", "step=4.ckpt", "step=6.ckpt"]


def test_the_reference_never_moves(tmp_path: Path) -> None:
    reference = FrozenReference()
    module = small_module(reference=reference)
    with reference.network(module.policy) as network:
        before = nn.utils.parameters_to_vector(network.parameters()).clone()
    weights_after(tmp_path, module=module)
    with reference.network(module.policy) as network:
        after = nn.utils.parameters_to_vector(network.parameters())
        assert not any(p.requires_grad for p in network.parameters())
    assert torch.equal(before, after)


def test_warm_up_is_linear_and_then_constant(tmp_path: Path) -> None:
    class Rates(Recorder):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            self.rows.append((trainer.global_step, {"lr": optimizer.param_groups[0]["lr"]}))

    rates = Rates()
    weights_after(tmp_path, module=small_module(warmup_steps=4), callbacks=[rates])
    seen = [row["lr"] for _, row in rates.rows if "lr" in row]
    assert seen == pytest.approx([0.0, 0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])


def test_an_effective_batch_that_cannot_be_split_says_what_fits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"effective_batch=10 .* data.micro_batch=2 or effective"):
        weights_after(tmp_path, data=small_data(effective_batch=10))


class LambdaInParameters:
    """A test-only rule: sees both parts, scales the loser's by a factor of its own."""

    needs_parts = True

    def __init__(self, factor: float) -> None:
        self.factor, self.calls, self.optimizers = factor, 0, set()

    def backward(self, loss: Any, module: nn.Module, optimizer: Any) -> None:
        assert isinstance(loss, LossParts)
        self.calls += 1
        self.optimizers.add(type(optimizer))
        trained = [p for p in module.parameters() if p.requires_grad]
        winner = torch.autograd.grad(loss.winner, trained, retain_graph=True)
        loser = torch.autograd.grad(loss.loser, trained)
        for p, g_w, g_l in zip(trained, winner, loser, strict=True):
            step = g_w + self.factor * g_l
            p.grad = step if p.grad is None else p.grad + step


@pytest.mark.parametrize(
    "objective", [DPO(beta=200.0), DMPO(beta=200.0, alpha=0.01), DSPO(beta=100.0)]
)
def test_a_gradient_rule_slots_in_and_gets_both_parts(tmp_path: Path, objective: Any) -> None:
    off = NoSafeguard(would_be_mu=0.9)
    plain, _ = weights_after(tmp_path, module=small_module(safeguard=off, objective=objective))
    rule = LambdaInParameters(1.0)
    module = small_module(safeguard=off, objective=objective, gradient_rule=rule)
    ruled, _ = weights_after(tmp_path, module=module)
    # At factor 1 the parts add up to the plain gradient, accumulation included.
    assert (plain - ruled).abs().max() < 1e-5
    assert rule.calls == 12
    assert rule.optimizers == {torch.optim.AdamW}
    other = small_module(safeguard=off, objective=objective, gradient_rule=LambdaInParameters(0.0))
    assert (weights_after(tmp_path, module=other)[0] - plain).abs().max() > 1e-4


def test_a_step_s_row_is_logged_before_its_checkpoint_is_written(tmp_path: Path) -> None:
    class Order(StepCheckpoint):
        def _save(self, trainer: Any) -> None:
            super()._save(trainer)
            saved_with.append([step for step, _ in recorder.rows])

    saved_with: list[list[int]] = []
    recorder = Recorder()
    saver = Order(str(tmp_path), every_n_steps=2)
    trainer = small_trainer(tmp_path, [WinnerLossTrajectory(), recorder, saver], max_steps=4)
    trainer.fit(small_module(), datamodule=small_data())
    assert saved_with == [[1, 2], [1, 2, 3, 4]]
