"""Rules that act around the optimiser's step, on the last layers, or on values alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.rules.backtracking import BacktrackingRule
from sdpo_exp.rules.budget import Budget, within_budget
from sdpo_exp.rules.flat import flat, trained, write_gradient
from sdpo_exp.rules.last_layers import LastLayersRule, first_reached
from sdpo_exp.rules.momentum_free import MomentumFreeRule, push_losers
from sdpo_exp.rules.parameter import ParameterRule
from sdpo_exp.safeguard import ConstantWeight
from tests.factories import errors_from_means
from tests.rules.problems import Changes, fitted, two_groups

SHARP = DPO(2000.0)


# -- momentum_free ----------------------------------------------------------------------------


def test_the_optimiser_remembers_the_winners_part_only(tmp_path: Path) -> None:
    """Its moments are those of a run whose losers have no weight, as long as weights agree."""
    same: Any = {"objective": SHARP, "warmup_steps": 0, "trainer": {"max_steps": 1}}
    ours, recorder, moved = fitted(tmp_path, safeguard=MomentumFreeRule(0.2), **same)
    same["trainer"] = {"max_steps": 1}
    alone, _, still = fitted(tmp_path, safeguard=ConstantWeight(0.0, 0.2), **same)
    for a, b in zip(ours.policy.parameters(), alone.policy.parameters(), strict=True):
        first, second = (
            m.trainer.optimizers[0].state[p]["exp_avg"] for m, p in ((ours, a), (alone, b))
        )
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-6)
    assert not torch.equal(moved, still)
    assert 0 < float(recorder.records[0].lambda_safe[0]) <= 1


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_losers_move_the_parameters_along_the_preconditioned_gradient(kind: str) -> None:
    optimizer = two_groups(kind, 3)
    before = flat(trained(optimizer))
    winner, loser = torch.ones(12), -2 * torch.ones(12)
    share = push_losers(optimizer, winner, loser, torch.ones(12), mu=0.2)
    # natural over harm is 1/2 whatever the preconditioner, for all point the same way.
    assert float(share) == pytest.approx(0.4)
    moved = flat(trained(optimizer)) - before
    if kind == "sgd":
        torch.testing.assert_close(moved[:8], torch.full((8,), 0.4 * 2 * 1e-2))
    assert (moved > 0).all()


# -- backtracking -----------------------------------------------------------------------------


def backtracked(folder: Path, tries: int, lr: float = 3e-2) -> Changes:
    watch = Changes()
    fitted(
        folder,
        safeguard=BacktrackingRule(0.9, tries),
        objective=SHARP,
        optimizer=partial(torch.optim.AdamW, lr=lr),
        warmup_steps=0,
        data={"micro_batch": 8, "max_steps": 20},
        trainer={"callbacks": [watch], "max_steps": 20},
    )
    return watch


def test_a_step_that_raises_the_winners_is_taken_again_with_less_of_the_losers(
    tmp_path: Path,
) -> None:
    one, five = backtracked(tmp_path, 1), backtracked(tmp_path, 5)
    assert set(one.lambdas) == {1.0}
    assert any(change > 0 for change in one.changes)
    assert set(five.lambdas) <= {1.0, 0.5, 0.25, 0.125, 0.0}
    assert min(five.lambdas) < 1
    rose = [lam for lam, change in zip(five.lambdas, five.changes, strict=True) if change > 0]
    assert set(rose) <= {0.0}  # only a step without losers may stay although it rose


def test_a_step_taken_back_leaves_no_trace_in_the_optimiser(tmp_path: Path) -> None:
    module, _, _ = fitted(
        tmp_path, safeguard=BacktrackingRule(0.9), objective=SHARP, trainer={"max_steps": 6}
    )
    counts = {int(s["step"]) for s in module.trainer.optimizers[0].state.values()}
    assert counts == {6}


# -- last_layers ------------------------------------------------------------------------------


def test_with_all_tensors_it_is_the_parameter_rule_of_one_micro_batch(tmp_path: Path) -> None:
    data = {"micro_batch": 8}
    last = fitted(tmp_path, safeguard=LastLayersRule(0.5, 99), objective=SHARP, data=data)
    whole = fitted(tmp_path, safeguard=ParameterRule(0.5), objective=SHARP, data=data)
    torch.testing.assert_close(last[2], whole[2], atol=1e-5, rtol=0)
    for a, b in zip(last[1].records, whole[1].records, strict=True):
        torch.testing.assert_close(a.lambda_safe, b.lambda_safe, rtol=1e-3, atol=1e-4)
    few = fitted(tmp_path, safeguard=LastLayersRule(0.5, 1), objective=SHARP, data=data)
    assert not torch.equal(few[2], last[2])


def test_the_layers_nearest_to_the_output_come_first() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False))
    parameters = list(net.parameters())
    reached = first_reached(net(torch.ones(1, 3)).sum(), parameters)
    assert reached[0] is parameters[2]
    assert {id(p) for p in reached} == {id(p) for p in parameters}


# -- budget -----------------------------------------------------------------------------------


def test_a_budget_by_hand() -> None:
    # Winner drifts -0.2, 0.1, 0, -0.1; loser drifts 0.1, 0.1, 0, 0.3.
    errors = errors_from_means([0.8, 1.1, 1.0, 0.9], [1.1, 1.1, 1.0, 1.3], [1.0] * 4, [1.0] * 4)
    assert within_budget(errors)[1].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert within_budget(errors, rate=4.0)[1].tolist() == [1.0, 0.0, 1.0, 1.0]
    assert within_budget(errors, slack=0.2)[1].tolist() == [1.0, 1.0, 1.0, 1.0]
    guarded, lambda_safe = within_budget(errors)
    (slope,) = torch.autograd.grad(guarded.loser.sum(), errors.loser)
    assert torch.equal(slope, lambda_safe)
    assert torch.equal(guarded.delta, errors.delta)


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="rate and slack"):
        within_budget(errors_from_means([1.0], [1.0], [1.0], [1.0]), rate=-1.0)


def test_a_budget_trains(tmp_path: Path) -> None:
    _, recorder, weights = fitted(tmp_path, safeguard=Budget(0.9), objective=SHARP)
    lambdas = torch.cat([record.lambda_safe for record in recorder.records])
    assert set(lambdas.tolist()) == {0.0, 1.0}
    assert torch.isfinite(weights).all()


def test_gradients_are_written_as_copies() -> None:
    vector, parameter = torch.ones(3), nn.Parameter(torch.zeros(3))
    write_gradient(vector, [parameter])
    vector.zero_()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [1.0, 1.0, 1.0]
