import pytest
import torch
from hypothesis import given

from sdpo_exp.objectives.hinge import Hinge, hinge_loss, hinge_weights
from sdpo_exp.objectives.ipo import IPO, ipo_loss, ipo_weights
from sdpo_exp.objectives.sft import SFT, sft_loss, sft_weights
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


def hand_errors():
    # Delta = (0.10 - 0.30) - (0.20 - 0.25) = -0.15.
    return errors_from_means([0.10], [0.30], [0.20], [0.25])


def test_sft_is_the_winner_error():
    errors = hand_errors()
    out = sft_loss(errors)
    assert torch.equal(out.loss, errors.winner)
    assert out.logits.item() == pytest.approx(0.15, rel=1e-6)
    a, b = sft_weights(errors)
    assert (a.tolist(), b.tolist()) == ([1.0], [0.0])


def test_sft_leaves_the_loser_out():
    pred, errors = make_errors(seed=1, requires_grad=True)
    sft_loss(errors).loss.sum().backward()
    assert pred.grad[:3].abs().sum() > 0
    assert not pred.grad[3:].any()


def test_ipo_by_hand():
    # beta = 5: (-Delta - 1/(2 beta))^2 = (0.15 - 0.1)^2 = 0.0025; u = 2.5 * 0.15 = 0.375.
    # a = b = 2 (Delta + 0.1) = -0.1: beyond the target the gradient has turned round.
    errors = hand_errors()
    out = ipo_loss(errors, beta=5.0)
    assert out.loss.item() == pytest.approx(0.0025, rel=1e-5)
    assert out.logits.item() == pytest.approx(0.375, rel=1e-6)
    a, b = ipo_weights(errors, beta=5.0)
    assert a.item() == b.item() == pytest.approx(-0.1, rel=1e-5)


@pytest.mark.parametrize("beta", [0.5, 5.0, 2000.0])
def test_ipo_values_at_zero_margin_and_at_its_target(beta):
    # Zero margin: 1/(4 beta^2). Target -Delta = 1/(2 beta), that is u = (beta/2)/(2 beta) = 1/4.
    loss = ipo_loss(errors_at_logits([0.0, 0.25], beta), beta=beta).loss
    assert loss[0].item() == pytest.approx(0.25 / beta**2, rel=1e-6)
    assert loss[1].item() == pytest.approx(0.0, abs=1e-12)
    assert IPO(beta=beta).target_logit == 0.25


def test_hinge_by_hand():
    # max(0, 1 - beta (-Delta)): beta = 4 gives 1 - 0.6 = 0.4, beta = 10 gives 0.
    errors = hand_errors()
    out = hinge_loss(errors, beta=4.0)
    assert out.loss.item() == pytest.approx(0.4, rel=1e-6)
    assert out.logits.item() == pytest.approx(0.3, rel=1e-6)
    assert hinge_weights(errors, beta=4.0).winner.item() == 4.0
    assert hinge_loss(errors, beta=10.0).loss.item() == 0.0
    assert hinge_weights(errors, beta=10.0).loser.item() == 0.0


def test_hinge_is_one_at_zero_margin():
    assert hinge_loss(errors_at_logits([0.0], 7.0), beta=7.0).loss.item() == 1.0


@given(LOGITS, BETAS)
def test_weights_are_the_derivatives_at_any_logit(logits, beta):
    for objective in (SFT(), IPO(beta=beta), Hinge(beta=beta)):
        check_weights(objective, errors_at_logits(logits, beta), tolerance=1e-5)


@pytest.mark.parametrize("objective", [SFT(), IPO(beta=2.0), Hinge(beta=2.0)])
def test_gradient_signs(objective):
    check_gradient_signs(objective)


@pytest.mark.parametrize("objective", [SFT(), IPO(beta=2.0), Hinge(beta=0.7)])
def test_gradient_matches_finite_differences(objective):
    check_gradient_by_finite_differences(objective)


def test_hinge_is_silent_beyond_the_margin():
    errors = errors_at_logits([0.6, 0.4], beta=2.0)  # the margin is reached at u = 1/2
    (winner,) = torch.autograd.grad(hinge_loss(errors, beta=2.0).loss.sum(), errors.winner)
    assert winner.tolist() == [0.0, 2.0]
