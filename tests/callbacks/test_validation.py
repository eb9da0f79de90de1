"""The validation loop: means over all held-out pairs, in the row of their step."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from sdpo_exp.callbacks.best import BestCheckpoint
from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from sdpo_exp.callbacks.probe import FixedProbe
from sdpo_exp.callbacks.validation import QUANTITIES, ValidationMetrics
from sdpo_exp.callbacks.winner_loss import WinnerLossTrajectory
from sdpo_exp.errors import UserError
from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.randomness import Stream, draw_uniform
from sdpo_exp.types import PairErrors
from tests.callbacks.dropping import Dropping
from tests.harness import Recorder, SmallBackbone, small_data, small_module, small_trainer

PAIRS = 11


def run(
    folder: Path, *callbacks: Any, module: Any = None, data: Any = None, **trainer: Any
) -> Recorder:
    recorder = Recorder()
    options = {"max_steps": 5, **trainer}
    fit = small_trainer(folder, [*callbacks, recorder], **options)
    fit.fit(module or small_module(), datamodule=data or held_out())
    return recorder


def held_out(**changes: Any) -> Any:
    return small_data(**{"validation_pairs": PAIRS, "max_steps": 5, **changes})


def visited(recorder: Recorder) -> dict[int, dict[str, float]]:
    return {step: row for step, row in recorder.rows if "val/loss" in row}


def vector(module: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.policy.parameters()])


def directly(module: Any) -> dict[str, Tensor]:
    """Every pair on its own, each (PAIRS,)."""
    singles = []
    for batch in small_data(micro_batch=1).held_out(PAIRS):
        uniform = draw_uniform(0, batch.keys, Stream.TIMESTEP)
        noisy, cond = module.noise_batch(batch, uniform, 0)
        ref = module.predict_reference(noisy, cond)
        with torch.no_grad():
            pred = module.predict_policy(noisy, cond)
        singles.append(PairErrors.from_predictions(pred, ref, noisy.target))
    names = ("winner", "loser", "ref_winner", "ref_loser")
    table = {name: torch.cat([getattr(e, name) for e in singles]) for name in names}
    winner, loser = table["winner"] - table["ref_winner"], table["loser"] - table["ref_loser"]
    return {
        "winner_error": table["winner"],
        "loser_error": table["loser"],
        "winner_minus_ref": winner,
        "loser_minus_ref": loser,
        "margin": loser - winner,
        "implicit_accuracy": (loser > winner).float() + 0.5 * (loser == winner).float(),
        "loss": nn.functional.softplus(100.0 * (winner - loser)),  # beta / 2 = 100
    }


@pytest.mark.parametrize("micro_batch", [1, 4, 8])
def test_means_and_standard_errors_are_over_pairs_whatever_the_micro_batch(
    tmp_path: Path, micro_batch: int
) -> None:
    module = small_module(objective=DPO(beta=200.0))
    data = held_out(micro_batch=micro_batch)
    last = visited(run(tmp_path, ValidationMetrics(), module=module, data=data))[5]
    expected = directly(module)
    assert set(expected) == set(QUANTITIES)
    for name, values in expected.items():
        assert len(values) == PAIRS
        assert last[f"val/{name}"] == pytest.approx(float(values.mean()), rel=1e-4, abs=1e-7)
    for name in ("winner_minus_ref", "loser_minus_ref", "margin"):
        error = float(expected[name].std()) / PAIRS**0.5
        assert last[f"val/{name}_se"] == pytest.approx(error, rel=1e-3)
    assert abs(last["val/margin"]) > 1e-5


def test_it_visits_step_0_due_steps_and_the_last_in_optimiser_steps(tmp_path: Path) -> None:
    for micro_batch in (8, 2):  # one and four micro-batches per step
        recorder = run(tmp_path, ValidationMetrics(2), data=held_out(micro_batch=micro_batch))
        assert list(visited(recorder)) == [0, 2, 4, 5]


def test_before_training_policy_and_reference_agree(tmp_path: Path) -> None:
    first = visited(run(tmp_path, ValidationMetrics()))[0]
    assert first["val/winner_minus_ref"] == first["val/margin"] == first["val/margin_se"] == 0.0
    assert first["val/implicit_accuracy"] == 0.5
    assert first["val/loss"] == pytest.approx(0.6931472)


def test_the_run_s_seed_does_not_change_the_questions(tmp_path: Path) -> None:
    first = visited(run(tmp_path, ValidationMetrics(), data=held_out()))[0]
    other = run(tmp_path, ValidationMetrics(), module=small_module(seed=7), data=held_out(seed=7))
    assert visited(other)[0] == first


@pytest.mark.parametrize("backbone", [SmallBackbone, Dropping])
def test_training_is_the_same_with_and_without(tmp_path: Path, backbone: Any) -> None:
    vectors, last = [], []
    for callbacks in ([], [ValidationMetrics(1)]):
        module = small_module(backbone=backbone())
        torch.manual_seed(3)
        recorder = run(tmp_path, *callbacks, WinnerLossTrajectory(), module=module)
        vectors.append(vector(module))
        last.append({k: v for k, v in recorder.rows[-1][1].items() if not k.startswith("val/")})
    assert torch.equal(*vectors)
    assert last[0] == last[1]


def test_the_policy_answers_in_eval_mode_and_trains_on_in_its_own(tmp_path: Path) -> None:
    module = small_module(backbone=Dropping())
    first = visited(run(tmp_path, ValidationMetrics(), module=module))[0]
    plain = visited(run(tmp_path, ValidationMetrics()))[0]
    assert first["val/winner_error"] == plain["val/winner_error"]
    assert module.policy.dropout.training


def test_a_part_in_eval_mode_stays_in_it(tmp_path: Path) -> None:
    module = small_module()
    module.policy.first.eval()
    run(tmp_path, ValidationMetrics(), module=module)
    assert [module.policy.first.training, module.policy.last.training] == [False, True]


def test_metrics_csv_has_one_row_per_step_with_the_validation_in_it(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="", flush_logs_every_n_steps=1)
    saver = StepCheckpoint(str(tmp_path), every_n_steps=2)
    # In this order the checkpoint of step 2, which logs the row, is written first of all.
    chosen = [saver, WinnerLossTrajectory(), ValidationMetrics(2)]
    run(tmp_path, *chosen, logger=logger, enable_checkpointing=True)
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert [row["step"] for row in rows if row["val/loss"]] == ["0", "2", "4", "5"]
    assert all(row["train/loss"] for row in rows[1:])


def test_a_resumed_run_sees_what_the_uninterrupted_one_saw(tmp_path: Path) -> None:
    whole = visited(run(tmp_path, ValidationMetrics(2)))
    saver = StepCheckpoint(str(tmp_path), every_n_steps=3)
    run(tmp_path, ValidationMetrics(2), saver, max_steps=3, data=held_out(max_steps=3))
    recorder = Recorder()
    trainer = small_trainer(tmp_path, [ValidationMetrics(2), recorder], max_steps=5)
    last = tmp_path / "step=3.ckpt"
    trainer.fit(small_module(), datamodule=held_out(), ckpt_path=last, weights_only=True)
    again = visited(recorder)
    assert list(again) == [3, 4, 5]
    assert (again[4], again[5]) == (whole[4], whole[5])


def test_the_best_checkpoint_may_follow_the_validation(tmp_path: Path) -> None:
    options: Any = {"monitor": "val/loser_error", "max_winner_minus_ref": None}
    best = BestCheckpoint(str(tmp_path), **options)
    probe = FixedProbe(pairs=4, every_n_steps=1)
    recorder = run(tmp_path, best, ValidationMetrics(2), probe, enable_checkpointing=True)
    seen = {step: row["val/loser_error"] for step, row in visited(recorder).items()}
    assert best.best is not None
    assert best.best.step == max(seen, key=lambda step: seen[step])


def test_lightning_s_own_loop_does_not_run_as_well(tmp_path: Path) -> None:
    module, calls = small_module(), []
    step = module.validation_step
    module.validation_step = lambda batch, index: calls.append(index) or step(batch, index)
    run(tmp_path, ValidationMetrics(100), module=module, data=held_out(micro_batch=4))
    assert calls == [0, 1, 2] * 2  # step 0 and the last


def test_a_mistake_that_a_worker_meets_is_told(tmp_path: Path) -> None:
    class Broken(type(small_data())):  # type: ignore[misc]
        def val_dataloader(self) -> Any:
            return [UserError("row 3 cannot be read")]

    data = Broken(**vars_of(small_data()))
    with pytest.raises(UserError, match="row 3 cannot be read"):
        run(tmp_path, ValidationMetrics(), data=data)


def vars_of(data: Any) -> dict[str, Any]:
    names = ("train", "validation", "micro_batch", "effective_batch")
    return {name: getattr(data, name) for name in names} | {"max_steps": 5}


def test_no_validation_pairs_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = run(tmp_path, ValidationMetrics(), data=held_out(validation_pairs=0))
    assert "give data.validation_pairs=<number>" in caplog.text
    assert visited(recorder) == {}


class _Ranks(Recorder):
    """What each rank reported, for the test to compare."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        torch.save(visited(self), self.folder / f"rank{trainer.global_rank}.pt")


def _two_ranks(folder: Path, data: Any) -> list[dict[int, dict[str, float]]]:
    folder.mkdir()
    chosen = [ValidationMetrics(2), _Ranks(folder)]
    trainer = small_trainer(folder, chosen, max_steps=3, devices=2, strategy="ddp_fork")
    trainer.fit(small_module(), datamodule=data)
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


class _OneRankOnly(type(small_data())):  # type: ignore[misc]
    """All validation pairs on rank 0, none on rank 1."""

    def val_dataloader(self) -> Any:
        return self.held_out(self.validation_pairs) if self.trainer.global_rank == 0 else iter(())


@pytest.mark.slow
def test_two_ranks_with_uneven_shares_report_what_one_does(tmp_path: Path) -> None:
    alone = visited(
        run(tmp_path, ValidationMetrics(2), max_steps=3, data=held_out(micro_batch=8, max_steps=3))
    )
    split = held_out(micro_batch=2, max_steps=3)  # 6 and 5 pairs
    lone = _OneRankOnly(**vars_of(split), validation_pairs=PAIRS)
    lone.max_steps = 3
    for name, data in (("split", split), ("lone", lone)):
        ours, theirs = _two_ranks(tmp_path / name, data)
        assert ours == theirs
        assert list(ours) == list(alone) == [0, 2, 3]
        for step, row in alone.items():
            for key, value in row.items():
                if key.startswith("val/"):
                    assert ours[step][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
