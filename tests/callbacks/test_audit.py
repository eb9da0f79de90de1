"""The audit says what a step did to its own pairs, and does nothing to the training."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from sdpo_exp.callbacks.audit import PromiseAudit, schedule_bin
from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from sdpo_exp.callbacks.winner_loss import WinnerLossTrajectory
from sdpo_exp.models.flow_process import FlowProcess
from sdpo_exp.models.forward_process import VPProcess
from tests.callbacks.dropping import Dropping
from tests.harness import Recorder, SmallBackbone, small_data, small_module, small_trainer

SGD = partial(torch.optim.SGD, lr=1e-3)


class Flow(SmallBackbone):
    """Times in (0, 1), and errors that count by them."""

    def __init__(self) -> None:
        super().__init__()
        self.process = FlowProcess("logit_normal", weighting="signal")


class Watch(L.Callback):
    """Keeps batches, and the policy before and after each optimiser step."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.before: list[Any] = []
        self.after: list[Any] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.before.append(deepcopy(pl_module.policy))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.batches.append(args[1])
        if trainer.global_step > len(self.after):
            self.after.append(deepcopy(pl_module.policy))


def audited(
    folder: Path, *more: Any, steps: int = 2, micro_batch: int = 2, every: int = 1, **changes: Any
) -> list[tuple[int, dict[str, float]]]:
    module = changes.pop("module", None) or small_module(**changes)
    recorder = Recorder()
    trainer = small_trainer(
        folder, [PromiseAudit(every_n_steps=every), *more, recorder], max_steps=steps
    )
    trainer.fit(module, datamodule=small_data(micro_batch=micro_batch))
    return recorder.rows


@pytest.mark.parametrize("backbone", [SmallBackbone, Flow])
def test_changes_are_recomputed_over_the_whole_window(tmp_path: Path, backbone: Any) -> None:
    watch, module = Watch(), small_module(backbone=backbone())
    rows = audited(tmp_path, watch, module=module, steps=4, every=2)
    assert [step for step, _ in rows] == [2, 4]
    for step, row in rows:
        drawn = [module.draw(batch) for batch in watch.batches[4 * (step - 1) : 4 * step]]
        changes, fractions = [], []
        for noisy, cond in drawn:
            first, last = (
                noisy.errors(pred, pred)
                for pred in (
                    module.backbone.denoise(policy, noisy.x_t, noisy.t, cond).detach()
                    for policy in (watch.before[step - 1], watch.after[step - 1])
                )
            )
            changes.append(torch.stack([last.winner - first.winner, last.loser - first.loser]))
            scale = 1 if backbone is Flow else 1000
            fractions.append(noisy.t[: len(noisy.t) // 2] / scale)
        (winner, loser), fraction = torch.cat(changes, dim=1).double(), torch.cat(fractions)
        assert row["audit/pairs"] == len(winner) == 8
        assert row["audit/winner_change"] == pytest.approx(float(winner.mean()), abs=1e-7)
        assert row["audit/loser_change"] == pytest.approx(float(loser.mean()), abs=1e-7)
        assert row["audit/winner_rise"] == pytest.approx(
            float(winner.clamp_min(0).mean()), abs=1e-7
        )
        assert row["audit/winner_rose"] == float((winner > 0).double().mean())
        assert row["audit/step_rose"] == float(winner.mean() > 0)
        told = {name.split("/")[1] for name in row if name.count("/") == 2}
        for low in (0.0, 0.25, 0.5, 0.75):
            own = winner[(fraction >= low) & (fraction < low + 0.25)]
            name = f"t{low:g}-{low + 0.25:g}"
            assert (name in told) == bool(len(own))
            if len(own):
                change = row[f"audit/{name}/winner_change"]
                assert change == pytest.approx(float(own.mean()), abs=1e-7)
                assert row[f"audit/{name}/winner_rose"] == float((own > 0).double().mean())


def test_the_share_so_far_is_of_all_audited_steps(tmp_path: Path) -> None:
    rose = [row for _, row in audited(tmp_path, steps=6)]
    share = [sum(row["audit/step_rose"] for row in rose[: n + 1]) / (n + 1) for n in range(6)]
    assert [row["audit/step_rose_so_far"] for row in rose] == share


@pytest.mark.parametrize("backbone", [SmallBackbone, Flow])
@pytest.mark.parametrize("lr", [1e-4, 1e-3])
def test_the_smaller_the_step_the_truer_the_prediction(
    tmp_path: Path, backbone: Any, lr: float
) -> None:
    optimizer = partial(torch.optim.SGD, lr=lr)
    module = small_module(backbone=backbone(), optimizer=optimizer, warmup_steps=0)
    ((_, row),) = audited(tmp_path, module=module, steps=1)
    for role in ("winner", "loser"):
        predicted, change = row[f"audit/predicted_{role}_change"], row[f"audit/{role}_change"]
        assert predicted != 0
        assert change == pytest.approx(predicted, rel=20 * lr + 2e-3)


def test_the_prediction_is_the_gradient_times_the_step(tmp_path: Path) -> None:
    watch, module = Watch(), small_module()
    _, (_, row) = audited(tmp_path, watch, module=module)
    before, after = watch.before[1], watch.after[1]
    errors = []
    for batch in watch.batches[4:]:
        noisy, cond = module.draw(batch)
        pred = module.backbone.denoise(before, noisy.x_t, noisy.t, cond)
        errors.append(noisy.errors(pred, pred).winner)
    gradients = torch.autograd.grad(torch.cat(errors).mean(), list(before.parameters()))
    moved = zip(gradients, before.parameters(), after.parameters(), strict=True)
    expected = sum(float((g * (new - old)).detach().sum()) for g, old, new in moved)
    assert row["audit/predicted_winner_change"] == pytest.approx(expected, rel=1e-4)


def test_accumulation_does_not_change_the_numbers(tmp_path: Path) -> None:
    small, large = audited(tmp_path, micro_batch=2), audited(tmp_path, micro_batch=8)
    for (_, ours), (_, theirs) in zip(small, large, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ("winner_change", "loser_change", "predicted_winner_change"):
            assert ours[f"audit/{name}"] == pytest.approx(theirs[f"audit/{name}"], rel=0.02), name


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_no_step_no_change_whatever_dropout_and_autocast(tmp_path: Path, precision: str) -> None:
    recorder = Recorder()
    module = small_module(backbone=Dropping(), optimizer=partial(torch.optim.SGD, lr=0.0))
    callbacks = [PromiseAudit(every_n_steps=1), recorder]
    trainer = small_trainer(tmp_path, callbacks, max_steps=1, precision=precision)
    trainer.fit(module, datamodule=small_data())
    ((_, row),) = recorder.rows
    assert row.pop("audit/pairs") == 8
    assert set(row.values()) == {0.0}


@pytest.mark.parametrize("backbone", [SmallBackbone, Dropping])
def test_training_is_not_disturbed(tmp_path: Path, backbone: Any) -> None:
    def train(*more: Any) -> tuple[Any, ...]:
        module, recorder = small_module(backbone=backbone()), Recorder()
        torch.manual_seed(3)
        trainer = small_trainer(tmp_path, [WinnerLossTrajectory(), *more, recorder], max_steps=3)
        trainer.fit(module, datamodule=small_data())
        rows = [
            (step, {k: v for k, v in row.items() if not k.startswith("audit/")})
            for step, row in recorder.rows
        ]
        weights = list(module.policy.parameters())
        state = trainer.optimizers[0].state.values()
        moments = [value for moment in state for value in moment.values()]
        gradients = [p.grad for p in weights]
        modes = [layer.training for layer in module.policy.modules()]
        return rows, modes, [*weights, *gradients, *moments, torch.get_rng_state()]

    rows, modes, tensors = train()
    same_rows, same_modes, same_tensors = train(PromiseAudit(every_n_steps=1))
    assert rows == same_rows
    assert modes == same_modes
    assert len(tensors) == len(same_tensors) > 13
    for ours, theirs in zip(tensors, same_tensors, strict=True):
        assert torch.equal(ours, theirs)


def test_steps_that_are_not_due_keep_nothing(tmp_path: Path) -> None:
    audit = PromiseAudit(every_n_steps=3)
    kept = []

    class Look(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            kept.append((len(audit._window), len(audit._before) > 0))

    trainer = small_trainer(tmp_path, [audit, Look()], max_steps=4)
    trainer.fit(small_module(), datamodule=small_data())
    assert kept == [(0, False)] * 4 + [(1, False)] + [(0, False)] * 3


def test_a_resumed_run_counts_on(tmp_path: Path) -> None:
    whole = audited(tmp_path, steps=6)
    saver = StepCheckpoint(str(tmp_path / "saved"), every_n_steps=3)
    audited(tmp_path, saver, steps=3)
    recorder = Recorder()
    trainer = small_trainer(tmp_path, [PromiseAudit(every_n_steps=1), recorder], max_steps=6)
    path = tmp_path / "saved" / "step=3.ckpt"
    trainer.fit(small_module(), datamodule=small_data(micro_batch=2), ckpt_path=path)
    assert recorder.rows == whole[3:]


def test_bins_are_parts_of_the_whole_schedule() -> None:
    table = torch.linspace(0.9999, 0.001, 1000)
    steps = torch.tensor([0, 249, 250, 499, 500, 750, 999])
    assert schedule_bin(VPProcess(table, "epsilon"), steps, 4).tolist() == [0, 0, 1, 1, 2, 3, 3]
    few = VPProcess(table, "epsilon", [249, 499, 749, 999])
    assert schedule_bin(few, few.timesteps, 4).tolist() == [0, 1, 2, 3]
    times = torch.tensor([1e-5, 0.2499, 0.25, 0.6, 0.99999])
    flow = FlowProcess("logit_normal", shift="static")
    assert schedule_bin(flow, times, 4).tolist() == [0, 0, 1, 2, 3]
    assert schedule_bin(flow, times, 1).tolist() == [0] * 5


class _Keep(Recorder):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        torch.save(self.rows, self.folder / f"rows{trainer.global_rank}.pt")


@pytest.mark.slow
def test_two_ranks_audit_the_pairs_of_both(tmp_path: Path) -> None:
    callbacks = [PromiseAudit(every_n_steps=1), _Keep(tmp_path)]
    trainer = small_trainer(tmp_path, callbacks, max_steps=2, devices=2, strategy="ddp_fork")
    trainer.fit(small_module(), datamodule=small_data(micro_batch=2))
    alone = audited(tmp_path, micro_batch=8)
    for rank in (0, 1):
        rows = torch.load(tmp_path / f"rows{rank}.pt")
        for (_, ours), (_, theirs) in zip(rows, alone, strict=True):
            assert ours["audit/pairs"] == 8
            assert ours == pytest.approx(theirs, rel=0.02, abs=1e-6)
