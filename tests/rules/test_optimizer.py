"""The optimiser rule: predicted steps are the real ones, and its lambda keeps its promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpo_exp.errors import UserError
from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.rules.flat import flat, trained, write_gradient
from sdpo_exp.rules.optimizer import OptimizerRule, largest_safe_step
from sdpo_exp.rules.parameter import ParameterRule
from sdpo_exp.rules.updates import check_known, preconditioner, real_step
from tests.rules.problems import OPTIMISERS, fitted, gradients, two_groups


def curved(point: torch.Tensor) -> torch.Tensor:
    return (point**4).sum() + point.prod()


def as_is(gradient: torch.Tensor) -> torch.Tensor:
    return gradient


@pytest.mark.parametrize("past", [0, 1, 5])
@pytest.mark.parametrize("kind", OPTIMISERS)
def test_the_step_is_the_one_that_the_optimiser_takes(kind: str, past: int) -> None:
    optimizer = two_groups(kind, past)
    gradient = torch.randn(12, generator=torch.Generator().manual_seed(9))
    predicted = real_step(optimizer)(gradient)
    before = flat(trained(optimizer))
    write_gradient(gradient, trained(optimizer))
    optimizer.step()
    torch.testing.assert_close(flat(trained(optimizer)) - before, predicted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_the_preconditioner_is_the_last_steps(kind: str) -> None:
    optimizer = two_groups(kind, 4)
    if kind in ("adam", "adamw"):
        state = optimizer.state[trained(optimizer)[2]]
        corrected = state["exp_avg_sq"] / (1 - optimizer.param_groups[1]["betas"][1] ** 4)
        expected = 3e-2 / (corrected.sqrt() + 1e-8)
    else:
        expected = torch.full((4,), 3e-2)
    torch.testing.assert_close(preconditioner(optimizer)[8:], expected)


def test_the_prediction_is_the_limit_of_the_real_change(tmp_path: Path) -> None:
    """<G_A, s> against what a real AdamW step does to a curved winner error, as lr goes to 0."""
    ratios = []
    for lr in (1e-2, 1e-3, 1e-4):
        point = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
        optimizer = torch.optim.AdamW([point], lr=lr, weight_decay=0.1)
        for n in range(3):
            write_gradient(torch.tensor([0.3, -0.2, 0.1 * n]), [point])
            optimizer.step()
        (slope,) = torch.autograd.grad(curved(point), point)
        gradient = slope - torch.tensor([0.0, 30.0, -1.0])
        predicted = slope.float() @ real_step(optimizer)(gradient.float())
        before = curved(point).item()
        write_gradient(gradient, [point])
        optimizer.step()
        ratios.append((curved(point).item() - before) / float(predicted))
    errors = [abs(ratio - 1) for ratio in ratios]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 2e-3


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(OPTIMISERS)),
    st.integers(0, 1000),
    st.floats(0, 1, allow_subnormal=False),
)
def test_the_winners_error_does_not_rise_under_the_real_step(
    kind: str, seed: int, mu: float
) -> None:
    found, step = gradients(seed=seed), real_step(two_groups(kind, seed=seed))
    share = largest_safe_step(found, step, as_is, mu, evaluations=4)
    assert 0 <= share <= 1

    def change(at: float | torch.Tensor) -> float:
        return float(found.protected @ step(found.combined(at)))

    bound = mu * min(change(0.0), 0.0)
    if change(0.0) <= bound:
        assert change(share) <= bound + 1e-6
        if share < 1:  # not needlessly small: half as much again would break the bound
            assert change(min(1.0, 1.5 * float(share) + 0.05)) > bound - 1e-6
    else:
        assert change(share) == min(change(0.0), change(1.0))


def test_for_plain_descent_it_finds_the_parameter_rules_lambda() -> None:
    for seed in range(20):
        found = gradients(seed=seed)
        sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(12))], lr=0.1)
        expected = ParameterRule(0.4).share(found, sgd, as_is)
        ours = OptimizerRule(0.4).share(found, sgd, as_is)
        if found.protected @ found.winner > 0:
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_clipping_is_part_of_the_step() -> None:
    found = gradients(seed=3)
    step = real_step(two_groups("momentum", 4))
    shares = [
        float(largest_safe_step(found, step, clip, 0.5, 6))
        for clip in (as_is, lambda g: 1e-3 * g / g.norm())
    ]
    # With a tiny gradient momentum decides alone, so lambda is an end of its range.
    assert shares[0] != shares[1]


def test_a_step_of_no_length_still_guards_the_momentum() -> None:
    found, resting = gradients(seed=1), two_groups("adamw", 0)
    for group in resting.param_groups:
        group["lr"] = 0.0
    expected = ParameterRule(0.7).share(found, resting, as_is)
    assert torch.equal(OptimizerRule(0.7).share(found, resting, as_is), expected)
    assert float(expected) < 1


@pytest.mark.parametrize("kind", ["adagrad", "amsgrad"])
def test_unknown_optimisers_are_refused_in_words(kind: str) -> None:
    parameter = [torch.nn.Parameter(torch.zeros(2))]
    optimizer: torch.optim.Optimizer = (
        torch.optim.Adagrad(parameter)
        if kind == "adagrad"
        else torch.optim.AdamW(parameter, amsgrad=True)
    )
    with pytest.raises(UserError, match=r"safeguard=optimizer: .* safeguard=parameter"):
        check_known(optimizer, "safeguard=optimizer")


def test_it_trains_and_its_lambda_is_logged(tmp_path: Path) -> None:
    _, recorder, weights = fitted(tmp_path, safeguard=OptimizerRule(0.5), objective=DPO(2000.0))
    lambdas = torch.cat([record.lambda_safe for record in recorder.records])
    assert torch.isfinite(weights).all()
    assert float(lambdas.min()) < 1
    assert lambdas.view(6, 8).std(1).max() == 0
