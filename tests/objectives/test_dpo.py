import math

import pytest
import torch
from hypothesis import given

from sdpo_exp.objectives.dpo import DPO, beta_from_sum, dpo_loss, dpo_weights, implicit_logits
from sdpo_exp.types import PairErrors
from tests.factories import (
    BETAS,
    LOGITS,
    check_gradient_by_finite_differences,
    check_gradient_signs,
    check_weights,
    errors_at_logits,
    errors_from_means,
    make_errors,
    make_predictions,
)


def test_loss_by_hand():
    # Delta = (0.10 - 0.30) - (0.20 - 0.25) = -0.15; u = -(20/2) * -0.15 = 1.5.
    # -log sigmoid(1.5) = log(1 + e^-1.5) = 0.2014133; a = b = 10 sigmoid(-1.5) = 1.8242552.
    errors = errors_from_means([0.10], [0.30], [0.20], [0.25])
    out = dpo_loss(errors, beta=20.0)
    assert out.logits.item() == pytest.approx(1.5, rel=1e-6)
    assert out.loss.item() == pytest.approx(0.2014133, rel=1e-6)
    a, b = dpo_weights(errors, beta=20.0)
    assert a.item() == b.item() == pytest.approx(1.8242552, rel=1e-6)


def test_loss_is_per_pair():
    errors = errors_at_logits([-1.0, 0.0, 2.0], beta=4.0)
    out = dpo_loss(errors, beta=4.0)
    assert out.loss.shape == out.logits.shape == (3,)
    torch.testing.assert_close(out.logits, torch.tensor([-1.0, 0.0, 2.0]))


def test_zero_margin_gives_ln_2_exactly_when_policy_equals_reference():
    pred, _, target = make_predictions(seed=1)
    out = dpo_loss(PairErrors.from_predictions(pred, pred.clone(), target), beta=5000.0)
    assert not out.logits.any()
    assert out.loss.tolist() == pytest.approx([math.log(2)] * 3, rel=1e-7)


def test_a_better_winner_raises_the_logit_and_so_does_a_worse_loser():
    base = errors_from_means([0.3], [0.3], [0.3], [0.3])
    assert implicit_logits(base, beta=10.0).item() == 0
    for winner, loser in ((0.2, 0.3), (0.3, 0.4)):
        errors = errors_from_means([winner], [loser], [0.3], [0.3])
        assert implicit_logits(errors, beta=10.0).item() == pytest.approx(0.5, rel=1e-5)


@given(LOGITS, BETAS)
def test_weights_are_the_derivatives_at_any_logit(logits, beta):
    check_weights(DPO(beta=beta), errors_at_logits(logits, beta), tolerance=1e-4)


@pytest.mark.parametrize("beta", [0.001, 5000.0])
def test_saturated_pairs_stay_finite(beta):
    # u = -1000: loss = 1000, weight = beta/2. u = +1000: both vanish.
    errors = errors_at_logits([-1e3, 1e3], beta)
    check_weights(DPO(beta=beta), errors, tolerance=1e-6)
    assert dpo_loss(errors, beta=beta).loss.tolist() == pytest.approx([1e3, 0.0], rel=1e-5)
    assert dpo_weights(errors, beta=beta).winner.tolist() == pytest.approx([beta / 2, 0.0])


def test_gradient_signs():
    check_gradient_signs(DPO(beta=2.0))


def test_gradient_matches_finite_differences():
    check_gradient_by_finite_differences(DPO(beta=7.0))


def test_gradient_wrt_predictions_is_the_weight_times_twice_the_residual():
    pred, errors = make_errors(pairs=3, shape=(4, 2), seed=2, requires_grad=True)
    dpo_loss(errors, beta=10.0).loss.sum().backward()
    a, b = dpo_weights(errors, beta=10.0)
    winner = a.view(-1, 1, 1) * 2 * errors.winner_residual.detach() / 8
    loser = -b.view(-1, 1, 1) * 2 * errors.loser_residual.detach() / 8
    torch.testing.assert_close(pred.grad, torch.cat([winner, loser]))


@pytest.mark.parametrize("elements", [16_384, 65_536])
def test_beta_for_sums_converts_to_the_same_logit(elements):
    # u = -(beta_sum/2) D Delta_mean = -(beta_mean/2) Delta_mean.
    assert beta_from_sum(0.25, elements=elements) == 0.25 * elements
    pred, ref, target = make_predictions(pairs=1, shape=(4, elements // 4), seed=3)
    sums = [(p.double() - target.double()).square().sum((1, 2)) for p in (pred, ref)]
    delta_sum = (sums[0][0] - sums[0][1]) - (sums[1][0] - sums[1][1])
    errors = PairErrors.from_predictions(pred, ref, target)
    logit = implicit_logits(errors, beta=beta_from_sum(0.25, elements=elements))
    assert logit.item() == pytest.approx(-0.125 * delta_sum.item(), rel=1e-3)


def test_the_class_is_the_function_at_its_beta():
    _, errors = make_errors(seed=4)
    assert torch.equal(DPO(beta=30.0)(errors).loss, dpo_loss(errors, beta=30.0).loss)
    assert torch.equal(DPO(beta=30.0).weights(errors).winner, dpo_weights(errors, beta=30.0).winner)
