import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.objectives.dmpo import (
    DMPO,
    dmpo_loss,
    dmpo_weights,
    share_beyond_target,
    target_logit,
)
from tests.factories import (
    BETAS,
    LOGITS,
    check_gradient_by_finite_differences,
    check_gradient_signs,
    check_weights,
    errors_at_logits,
    errors_from_means,
    make_errors,
)


def test_loss_by_hand():
    # u = 1.5 as in the DPO example; p = sigmoid(1.5) = 0.8175745; q = 1 - 0.1 = 0.9.
    # p log(p/q) + (1-p) log((1-p)/(1-q)) = -0.0785303 + 0.1096691 = 0.0311388.
    # a = b = (20/2) p (1-p) (log 9 - 1.5) = 1.0398857.
    errors = errors_from_means([0.10], [0.30], [0.20], [0.25])
    out = dmpo_loss(errors, beta=20.0, alpha=0.1)
    assert out.logits.item() == pytest.approx(1.5, rel=1e-6)
    assert out.loss.item() == pytest.approx(0.0311388, rel=1e-4)
    a, b = dmpo_weights(errors, beta=20.0, alpha=0.1)
    assert a.item() == b.item() == pytest.approx(1.0398857, rel=1e-5)


@pytest.mark.parametrize(
    # 0.5 log(0.5/q) + 0.5 log(0.5/(1-q)) = -ln 2 - 0.5 log(q (1-q)).
    ("alpha", "value"),
    [(0.5, 0.0), (0.01, 1.6144631), (0.0, 6.2146085)],
)
def test_value_at_zero_margin(alpha, value):
    loss = dmpo_loss(errors_at_logits([0.0], 10.0), beta=10.0, alpha=alpha).loss
    assert loss.item() == pytest.approx(value, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("alpha", "turning"), [(0.01, 4.59512), (0.0, 13.81551), (0.5, 0.0)])
def test_the_gradient_turns_round_at_the_target_logit(alpha, turning):
    assert target_logit(alpha) == pytest.approx(turning, abs=1e-5)
    assert DMPO(beta=1.0, alpha=alpha).target_logit == target_logit(alpha)
    errors = errors_at_logits([turning - 0.01, turning + 0.01], beta=2.0)
    loss = dmpo_loss(errors, beta=2.0, alpha=alpha).loss.sum()
    winner, loser = torch.autograd.grad(loss, (errors.winner, errors.loser))
    # Before: the winner's error is pushed down. Beyond: it is pushed up, the loser's down.
    assert winner[0] > 0 > winner[1]
    assert loser[0] < 0 < loser[1]


@pytest.mark.parametrize("alpha", [0.01, 0.3])
def test_the_loss_is_zero_at_the_target_and_positive_elsewhere(alpha):
    turning = target_logit(alpha)
    errors = errors_at_logits([turning, turning - 0.5, turning + 0.5], beta=2.0)
    loss = dmpo_loss(errors, beta=2.0, alpha=alpha).loss
    assert abs(loss[0].item()) < 1e-6
    assert (loss[1:] > 1e-4).all()


def test_alpha_is_clipped_at_both_ends():
    assert target_logit(0.0) == pytest.approx(math.log(1e6 - 1))
    assert target_logit(1.0) == pytest.approx(-math.log(1e6 - 1))


@given(
    LOGITS,
    BETAS,
    st.sampled_from([0.0, 0.01, 0.3, 0.5, 1.0]),
)
def test_loss_and_weights_match_float64_at_any_logit(logits, beta, alpha):
    errors = errors_at_logits(logits, beta)
    out = dmpo_loss(errors, beta=beta, alpha=alpha)
    u = out.logits.detach().double()
    label = min(max(1 - alpha, 1e-6), 1 - 1e-6)
    p, rest = torch.sigmoid(u), torch.sigmoid(-u)
    log_p, log_rest = -torch.log1p(torch.exp(-u)), -torch.log1p(torch.exp(u))
    log_p, log_rest = torch.where(u < -30, u, log_p), torch.where(u > 30, -u, log_rest)
    loss = p * (log_p - math.log(label)) + rest * (log_rest - math.log1p(-label))
    torch.testing.assert_close(out.loss.detach().double(), loss, rtol=1e-5, atol=1e-5)
    slope = 0.5 * beta * p * rest * (math.log(label) - math.log1p(-label) - u)
    a, b = dmpo_weights(errors, beta=beta, alpha=alpha)
    scale = 1e-6 * beta  # the difference u* - u cancels close to the target
    torch.testing.assert_close(a.double(), slope, rtol=1e-4, atol=scale)
    torch.testing.assert_close(b.double(), slope, rtol=1e-4, atol=scale)
    winner, loser = torch.autograd.grad(out.loss.sum(), (errors.winner, errors.loser))
    torch.testing.assert_close(winner, a, rtol=1e-4, atol=scale)
    torch.testing.assert_close(loser, -b, rtol=1e-4, atol=scale)


@pytest.mark.parametrize("alpha", [0.0, 0.01])
@pytest.mark.parametrize("logit", [-1e3, -40.0, -20.0, -12.0, -5.0, 0.0, 2.0, 8.0, 20.0, 1e3])
def test_weights_are_the_derivatives_even_where_sigmoid_rounds_to_one(logit, alpha):
    # float32 has sigmoid(17) = 1, so a gradient that passes through 1 - sigmoid(|u|) loses a
    # part of itself there: the misranked pairs, which have most to learn.
    objective = DMPO(beta=2000.0, alpha=alpha)
    check_weights(objective, errors_at_logits([logit], 2000.0), tolerance=1e-4)


def test_gradient_signs():
    check_gradient_signs(DMPO(beta=2.0, alpha=0.01))


@pytest.mark.parametrize("alpha", [0.0, 0.01, 0.4])
def test_gradient_matches_finite_differences(alpha):
    check_gradient_by_finite_differences(DMPO(beta=7.0, alpha=alpha))


def test_share_beyond_target_counts_strictly_larger_logits():
    logits = torch.tensor([4.0, 4.59, 4.60, 100.0])
    assert share_beyond_target(logits, alpha=0.01).item() == 0.5
    assert share_beyond_target(torch.tensor([0.0]), alpha=0.5).item() == 0.0


def test_the_class_is_the_function_at_its_constants():
    _, errors = make_errors(seed=4)
    objective = DMPO(beta=30.0, alpha=0.1)
    assert torch.equal(objective(errors).loss, dmpo_loss(errors, beta=30.0, alpha=0.1).loss)
    weights = dmpo_weights(errors, beta=30.0, alpha=0.1)
    assert torch.equal(objective.weights(errors).loser, weights.loser)
