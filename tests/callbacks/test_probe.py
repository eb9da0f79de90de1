"""The probe asks the same questions at every visit, in every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_exp.callbacks.probe import FixedProbe
from sdpo_exp.errors import UserError
from sdpo_exp.types import PairErrors
from tests.callbacks.dropping import Dropping
from tests.harness import Recorder, SmallBackbone, small_data, small_module, small_trainer

TIMES = (0.2, 0.6)


def visits(folder: Path, *, module: Any = None, micro_batch: int = 4, **probe: Any) -> Recorder:
    recorder = Recorder()
    options = {"pairs": 10, "times": TIMES, "every_n_steps": 2, **probe}
    trainer = small_trainer(folder, [FixedProbe(**options), recorder], max_steps=5)
    trainer.fit(module or small_module(), datamodule=small_data(micro_batch=micro_batch))
    return recorder


def test_it_visits_before_training_at_due_steps_and_at_the_end(tmp_path: Path) -> None:
    rows = visits(tmp_path).rows
    assert [step for step, row in rows if "probe/margin" in row] == [0, 2, 4, 5]


def test_before_training_policy_and_reference_agree(tmp_path: Path) -> None:
    first = visits(tmp_path).rows[0][1]
    assert first["probe/winner_minus_ref"] == first["probe/margin"] == 0.0
    assert first["probe/implicit_accuracy"] == 0.5


def test_standard_errors_are_over_pairs_and_not_over_bins(tmp_path: Path) -> None:
    module = small_module()
    last = visits(tmp_path, module=module).rows[-1][1]
    (batch,) = small_data(micro_batch=10).held_out(10)
    drift = []
    for time in TIMES:
        noisy, cond = module.noise_batch(batch, torch.full((10,), time), 0)
        ref = module.predict_reference(noisy, cond)
        pred = module.predict_policy(noisy, cond).detach()
        errors = PairErrors.from_predictions(pred, ref, noisy.target)
        drift.append(errors.winner - errors.ref_winner)
    per_pair = torch.stack(drift).mean(0)
    assert last["probe/winner_minus_ref"] == pytest.approx(float(per_pair.mean()), rel=1e-4)
    expected = float(per_pair.std()) / 10**0.5
    assert last["probe/winner_minus_ref_se"] == pytest.approx(expected, rel=1e-4)
    assert 0 < last["probe/margin_se"] < float("inf")


def test_the_run_s_seed_does_not_change_the_questions(tmp_path: Path) -> None:
    first = visits(tmp_path).rows[0][1]
    other = visits(tmp_path, module=small_module(seed=7)).rows[0][1]
    assert first == other
    noise = visits(tmp_path, seed=1).rows[0][1]
    assert noise["probe/winner_error"] != first["probe/winner_error"]


def test_the_micro_batch_does_not_change_the_answers(tmp_path: Path) -> None:
    first, last = visits(tmp_path).rows[0][1], visits(tmp_path, micro_batch=8).rows[0][1]
    for name, value in first.items():
        assert last[name] == pytest.approx(value, abs=1e-6), name


def test_the_answers_are_errors_of_the_held_out_pairs(tmp_path: Path) -> None:
    module, data = small_module(), small_data(micro_batch=10)
    (batch,) = data.held_out(10)
    by_bin = []
    for time in TIMES:
        noisy, cond = module.noise_batch(batch, torch.full((10,), time), 0)
        assert noisy.t.tolist() == [int(time * 1000)] * 20
        pred = module.predict_policy(noisy, cond)
        by_bin.append(PairErrors.from_predictions(pred.detach(), pred, noisy.target).winner.mean())
    row = visits(tmp_path).rows[0][1]
    for time, expected in zip(TIMES, by_bin, strict=True):
        assert row[f"probe/t{time:g}/winner_error"] == pytest.approx(float(expected), abs=1e-6)
    assert row["probe/winner_error"] == pytest.approx(float(sum(by_bin)) / 2, abs=1e-6)


@pytest.mark.parametrize("backbone", [SmallBackbone, Dropping])
def test_training_is_not_disturbed(tmp_path: Path, backbone: Any) -> None:
    quiet, probed = small_module(backbone=backbone()), small_module(backbone=backbone())
    torch.manual_seed(3)
    small_trainer(tmp_path, max_steps=5).fit(quiet, datamodule=small_data())
    torch.manual_seed(3)
    visits(tmp_path, module=probed)
    for ours, theirs in zip(quiet.policy.parameters(), probed.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_policy_is_asked_in_eval_mode_and_trains_on_in_its_own(tmp_path: Path) -> None:
    module = small_module(backbone=Dropping())
    first = visits(tmp_path, module=module).rows[0][1]
    assert first == visits(tmp_path).rows[0][1]
    assert module.policy.dropout.training


def test_a_reference_inside_the_policy_answers_in_eval_mode(tmp_path: Path) -> None:
    module = small_module(backbone=Dropping())
    modes = []
    predict = module.predict_reference

    def watched(*args: Any) -> Any:
        modes.append(module.policy.dropout.training)
        return predict(*args)

    module.predict_reference = watched  # type: ignore[method-assign]
    visits(tmp_path, module=module)
    questions = len(TIMES) * 3  # 10 pairs in micro-batches of 4
    assert modes[:questions] == [False] * questions
    assert set(modes[questions:]) == {True}


def test_too_few_held_out_pairs_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"probe.pairs=99: the data has 16 held-out pairs"):
        visits(tmp_path, pairs=99)
