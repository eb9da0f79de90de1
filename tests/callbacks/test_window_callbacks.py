"""Statistics cover the whole accumulation window, on all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_exp.callbacks.lambda_statistics import LambdaStatistics
from sdpo_exp.callbacks.throughput import Throughput
from sdpo_exp.callbacks.winner_loss import WinnerLossTrajectory, implicit_accuracy
from sdpo_exp.objectives.dmpo import DMPO
from sdpo_exp.safeguard import ConstantWeight, NoSafeguard, PreserveWinner
from tests.harness import Recorder, small_data, small_module, small_trainer

WINDOW = 4


def run(folder: Path, *callbacks: Any, steps: int = 3, **module: Any) -> Recorder:
    recorder = Recorder()
    trainer = small_trainer(folder, [*callbacks, recorder], max_steps=steps)
    trainer.fit(small_module(**module), datamodule=small_data(micro_batch=2))
    assert len(recorder.records) == steps * WINDOW
    return recorder


def window(recorder: Recorder, step: int, name: str) -> torch.Tensor:
    records = recorder.records[(step - 1) * WINDOW : step * WINDOW]
    return torch.cat([getattr(record, name) for record in records])


def test_the_trajectory_is_recomputed_over_four_micro_batches(tmp_path: Path) -> None:
    recorder = run(tmp_path, WinnerLossTrajectory())
    assert [step for step, _ in recorder.rows] == [1, 2, 3]
    for step, row in recorder.rows:
        winner, ref_w = (
            window(recorder, step, "winner_error"),
            window(recorder, step, "winner_ref_error"),
        )
        loser, ref_l = (
            window(recorder, step, "loser_error"),
            window(recorder, step, "loser_ref_error"),
        )
        delta = (winner - ref_w) - (loser - ref_l)
        expected = {
            "train/loss": window(recorder, step, "loss").mean(),
            "pair/winner_error": winner.mean(),
            "pair/loser_error": loser.mean(),
            "pair/winner_minus_ref": (winner - ref_w).mean(),
            "pair/loser_minus_ref": (loser - ref_l).mean(),
            "pair/margin": -delta.mean(),
            "pair/implicit_accuracy": (delta < 0).float().mean()
            + 0.5 * (delta == 0).float().mean(),
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(float(value), abs=1e-6), name


def test_lambda_statistics_are_recomputed_over_four_micro_batches(tmp_path: Path) -> None:
    recorder = run(tmp_path, LambdaStatistics())
    for step, row in recorder.rows:
        lambdas = window(recorder, step, "lambda_safe").double()
        assert len(lambdas) == 8
        assert row["safeguard/lambda_mean"] == pytest.approx(float(lambdas.mean()), abs=1e-6)
        assert row["safeguard/lambda_min"] == pytest.approx(float(lambdas.min()))
        assert row["safeguard/lambda_max"] == pytest.approx(float(lambdas.max()))
        for name, q in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9)):
            expected = float(torch.quantile(lambdas, q))
            assert row[f"safeguard/lambda_{name}"] == pytest.approx(expected, abs=1e-6)
        active = float((lambdas < 1).double().mean())
        assert row["safeguard/lambda_active"] == pytest.approx(active)
        cosine = float(window(recorder, step, "cosine").mean())
        assert row["safeguard/cosine"] == pytest.approx(cosine, abs=1e-6)


@pytest.mark.parametrize(
    ("safeguard", "applied"),
    [(NoSafeguard(would_be_mu=0.9), 1.0), (ConstantWeight(weight=0.3, would_be_mu=0.9), 0.3)],
)
def test_with_the_safeguard_off_the_log_says_what_lambda_would_be(
    tmp_path: Path, safeguard: Any, applied: float
) -> None:
    off = run(tmp_path, LambdaStatistics(), steps=1, safeguard=safeguard).rows[0][1]
    on = run(tmp_path, LambdaStatistics(), steps=1, safeguard=PreserveWinner(mu=0.9)).rows[0][1]
    assert off["safeguard/lambda_mean"] == pytest.approx(applied)
    assert off["safeguard/lambda_would_be"] == pytest.approx(on["safeguard/lambda_mean"])
    assert on["safeguard/lambda_would_be"] == on["safeguard/lambda_mean"] < 1


def test_only_due_steps_are_reported(tmp_path: Path) -> None:
    recorder = run(tmp_path, WinnerLossTrajectory(every_n_steps=2), steps=5)
    assert [step for step, _ in recorder.rows] == [2, 4]


def test_a_finite_target_margin_is_watched(tmp_path: Path) -> None:
    near = run(tmp_path, WinnerLossTrajectory(), objective=DMPO(beta=200.0, alpha=0.5))
    # alpha = 1/2 puts the target at u = 0, where every pair starts.
    values = [row["pair/beyond_target"] for _, row in near.rows]
    assert values[0] == 0.0
    assert 0.0 < values[-1] <= 1.0
    plain = run(tmp_path, WinnerLossTrajectory())
    assert "pair/beyond_target" not in plain.rows[0][1]


def test_ties_count_half() -> None:
    assert float(implicit_accuracy(torch.tensor([-1.0, 0.0, 2.0, 0.0]))) == 0.5
    assert float(implicit_accuracy(torch.tensor([-1.0, -2.0, 0.0, 1.0]))) == 0.625


def test_throughput_counts_all_micro_batches(tmp_path: Path) -> None:
    rows = run(tmp_path, Throughput(every_n_steps=2), steps=4).rows
    for _, row in rows:
        assert row["perf/pairs_per_second"] * row["perf/step_seconds"] == pytest.approx(8)


def test_a_record_is_per_pair_and_detached(tmp_path: Path) -> None:
    recorder = run(tmp_path, steps=1)
    for record in recorder.records:
        assert record.lambda_safe.shape == record.cosine.shape == record.timestep.shape == (2,)
        assert not any(value.requires_grad for value in record)


class _GatherCheck(WinnerLossTrajectory):
    """Writes what this rank saw and what the callback logged, for the test to compare."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        path = self.folder / f"rank{trainer.global_rank}.pt"
        seen = torch.load(path) if path.exists() else []
        torch.save([*seen, outputs["record"].winner_error], path)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        torch.save(dict(pl_module._row), self.folder / f"row{trainer.global_rank}.pt")


@pytest.mark.slow
def test_two_ranks_report_the_window_of_both(tmp_path: Path) -> None:
    trainer = small_trainer(
        tmp_path, [_GatherCheck(tmp_path)], max_steps=1, devices=2, strategy="ddp_fork"
    )
    trainer.fit(small_module(), datamodule=small_data(micro_batch=2))
    seen = [torch.cat(torch.load(tmp_path / f"rank{rank}.pt")) for rank in (0, 1)]
    assert [len(part) for part in seen] == [4, 4]
    for rank in (0, 1):
        row = torch.load(tmp_path / f"row{rank}.pt")
        assert row["pair/winner_error"] == pytest.approx(float(torch.cat(seen).mean()), abs=1e-6)


@pytest.mark.slow
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    module = small_module()
    trainer = small_trainer(tmp_path, max_steps=3, devices=2, strategy="ddp_fork")
    trainer.fit(module, datamodule=small_data(micro_batch=2))
    alone = small_module()
    small_trainer(tmp_path, max_steps=3).fit(alone, datamodule=small_data(micro_batch=8))
    for ours, theirs in zip(module.policy.parameters(), alone.policy.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
