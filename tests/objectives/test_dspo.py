import dataclasses
import math

import pytest
import torch
from hypothesis import given

from sdpo_exp.objectives.dpo import implicit_logits
from sdpo_exp.objectives.dspo import DSPO, DSPOSDXL, dspo_loss, dspo_sdxl_loss
from sdpo_exp.objectives.sft import sft_loss
from sdpo_exp.types import PairErrors
from tests.factories import (
    BETAS,
    LOGITS,
    check_gradient_by_finite_differences,
    make_errors,
    make_predictions,
)


def hand_errors() -> PairErrors:
    # Target 0. Winner: p = (1, 3), f = (1, 1); loser: p = (2, 0), f = (2, 2).
    # L_w = 5, L_l = 2, R_w = 1, R_l = 4; Delta = (5 - 2) - (1 - 4) = 6.
    pred = torch.tensor([[1.0, 3.0], [2.0, 0.0]])
    ref = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    return PairErrors.from_predictions(pred, ref, torch.zeros(2, 2))


def test_dspo_by_hand():
    # beta = 1/3: u = -(1/6) 6 = -1; 1 - sigmoid(-1) = sigmoid(1) = 0.7310586.
    # p_w - f_w = (0, 2); r_w - (1/3) 0.7310586 (0, 2) = (1, 3 - 0.4873724) = (1, 2.5126276).
    # Mean square = (1 + 6.3132975) / 2 = 3.6566487.
    out = dspo_loss(hand_errors(), beta=1 / 3)
    assert out.logits.item() == pytest.approx(-1.0, rel=1e-6)
    assert out.loss.item() == pytest.approx(3.6566487, rel=1e-6)


def test_dspo_is_the_winner_error_where_policy_equals_reference():
    pred, _, target = make_predictions(seed=1)
    errors = PairErrors.from_predictions(pred, pred.clone(), target)
    assert torch.equal(dspo_loss(errors, beta=3.0).loss, errors.winner)


def test_dspo_gradient_matches_finite_differences():
    check_gradient_by_finite_differences(DSPO(beta=2.0))


def test_dspo_gradient_flows_through_the_sigmoid():
    pred, errors = make_errors(seed=2, requires_grad=True)
    (full,) = torch.autograd.grad(dspo_loss(errors, beta=2.0).loss.sum(), pred)
    assert full[3:].abs().max() > 1e-4  # the loser takes part through sigmoid(u) only

    pred, errors = make_errors(seed=2, requires_grad=True)
    gate = torch.sigmoid(-implicit_logits(errors, beta=2.0)).detach().view(-1, 1, 1, 1)
    frozen = errors.winner_residual - 2.0 * gate * errors.winner_shift
    loss = frozen.square().flatten(1).mean(1)
    torch.testing.assert_close(loss, dspo_loss(errors, beta=2.0).loss)
    (without,) = torch.autograd.grad(loss.sum(), pred)
    assert not without[3:].any()
    assert not torch.allclose(full[:3], without[:3], rtol=1e-2)


def test_dspo_at_the_published_beta_is_fine_tuning_on_the_winners():
    pred, errors = make_errors(pairs=4, shape=(4, 8, 8), seed=3, requires_grad=True)
    dspo, sft = (
        torch.autograd.grad(out.loss.mean(), pred, retain_graph=True)[0].double()
        for out in (dspo_loss(errors, beta=0.001), sft_loss(errors))
    )
    cosine = (dspo * sft).sum() / (dspo.norm() * sft.norm())
    assert cosine > 0.999999
    assert 0 < dspo[4:].norm() < 1e-6 * dspo.norm()


@given(LOGITS, BETAS)
def test_saturated_pairs_stay_finite(logits, beta):
    # L_w = L_l = 1, R_w = 0.25 (shift 0.5); the loser's drift is set so that Delta = -2 u / beta.
    pred = torch.ones(2 * len(logits), 1, requires_grad=True)
    errors = PairErrors.from_predictions(pred, pred / 2, torch.zeros_like(pred))
    delta = torch.tensor(logits) * (-2 / beta)
    errors = errors.with_loser(errors.loser + (errors.delta - delta).detach())
    for objective in (DSPO(beta=beta), DSPOSDXL(beta=beta)):
        out = objective(errors)
        (gradient,) = torch.autograd.grad(out.loss.sum(), pred, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert torch.isfinite(out.loss).all()
        torch.testing.assert_close(
            out.logits, torch.tensor(logits), rtol=1e-4, atol=1e-6 * max(beta, 1)
        )


def test_sdxl_form_by_hand_in_its_far_branch():
    # Mean of d^2 = (0 + 4) / 2 = 2 >= 0.1: loss = 2 sigmoid(1)^2 = 2 * 0.5344466 = 1.0688932.
    out = dspo_sdxl_loss(hand_errors(), beta=1 / 3)
    assert out.loss.item() == pytest.approx(1.0688932, rel=1e-6)


def sdxl_at_shift(mean_square: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and d^2 of one pair with zero margin whose winner moved by sqrt(mean_square)."""
    shift = math.sqrt(mean_square)
    pred = torch.tensor([[shift], [shift]])
    errors = PairErrors.from_predictions(pred, torch.zeros(2, 1), torch.zeros(2, 1))
    return dspo_sdxl_loss(errors, beta=4.0).loss, errors.winner_shift.square()


def test_sdxl_form_in_its_near_branch_drops_the_shift():
    # Zero margin: (1 - sigmoid(0))^2 = 1/4, without d^2.
    loss, _ = sdxl_at_shift(0.09)
    assert loss.item() == 0.25


def test_sdxl_form_jumps_tenfold_at_the_threshold():
    below, _ = sdxl_at_shift(0.0999)
    above, _ = sdxl_at_shift(0.1001)
    assert below.item() / above.item() == pytest.approx(10.0, rel=2e-3)


def test_sdxl_branch_is_chosen_by_the_mean_over_the_micro_batch():
    # d^2 = 0.04 and 0.25: alone they take different branches, together (mean 0.145) the far one.
    pred = torch.tensor([[0.2], [0.5], [0.2], [0.5]])
    errors = PairErrors.from_predictions(pred, torch.zeros(4, 1), torch.zeros(4, 1))
    loss = dspo_sdxl_loss(errors, beta=4.0).loss
    torch.testing.assert_close(loss, 0.25 * torch.tensor([0.04, 0.25]))
    assert sdxl_at_shift(0.04)[0].item() == 0.25


@pytest.mark.parametrize("moved", [0.05, 0.8])
def test_sdxl_gradient_matches_finite_differences_in_both_branches(moved):
    def objective(errors: PairErrors):
        # Shifts of make_predictions have scale 0.2: rescale them to sit on one side of 0.1.
        errors = dataclasses.replace(errors, winner_shift=errors.winner_shift * (moved / 0.2))
        far = bool(errors.winner_shift.square().mean() >= 0.1)
        assert far == (moved > 0.3)
        return dspo_sdxl_loss(errors, beta=3.0)

    check_gradient_by_finite_differences(objective)


def test_sdxl_near_branch_sends_no_gradient_through_the_shift():
    pred, errors = make_errors(seed=5, moved=0.05, requires_grad=True)
    assert errors.winner_shift.square().mean() < 0.1
    gate = torch.sigmoid(-implicit_logits(errors, beta=8.0)).square()
    (expected,) = torch.autograd.grad(gate.sum(), pred, retain_graph=True)
    (actual,) = torch.autograd.grad(dspo_sdxl_loss(errors, beta=8.0).loss.sum(), pred)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("objective", [DSPO(beta=3.0), DSPOSDXL(beta=3.0)])
def test_neither_form_claims_closed_form_weights(objective):
    assert not hasattr(objective, "weights")


def test_the_classes_are_the_functions_at_their_beta():
    _, errors = make_errors(seed=4)
    assert torch.equal(DSPO(beta=3.0)(errors).loss, dspo_loss(errors, beta=3.0).loss)
    assert torch.equal(DSPOSDXL(beta=3.0)(errors).loss, dspo_sdxl_loss(errors, beta=3.0).loss)
