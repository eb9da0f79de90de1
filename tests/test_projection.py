"""`safeguard=projection`: mu cos^2 times the published bound, and what follows from that."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.safeguard import ProjectLoser, preserve_winner, project_loser
from tests.factories import CLOSED_FORM, errors_from_residuals, make_errors
from tests.test_safeguard_properties import PAIRS, SEEDS, assert_preserved, residuals, winner_change


@given(PAIRS, SEEDS, st.floats(0.01, 4, allow_subnormal=False))
def test_it_is_mu_cos_squared_times_the_bound(pairs, seed, mu):
    winner, loser = residuals(pairs, seed)
    _, found = project_loser(errors_from_residuals(winner, loser), mu, lambda_max=1e30)
    w, other = winner.double(), loser.double()
    inner = (w * other).sum(1)
    bound = (w * w).sum(1) / inner
    expected = mu * torch.cosine_similarity(w, other, dim=1, eps=0.0).square() * bound
    expected = torch.where(inner > 0, expected, 0.0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


@given(PAIRS, SEEDS, st.floats(0.01, 1, allow_subnormal=False))
def test_up_to_mu_one_it_never_exceeds_the_published_bound(pairs, seed, mu):
    errors = errors_from_residuals(*residuals(pairs, seed))
    _, bound = preserve_winner(errors, 0.0, "pair")
    _, found = project_loser(errors, mu)
    assert (found <= bound * (1 + 1e-5)).all()


@given(PAIRS, SEEDS, st.floats(0.01, 1, allow_subnormal=False))
def test_up_to_mu_one_the_winners_error_does_not_rise_to_first_order(pairs, seed, mu):
    errors = errors_from_residuals(*residuals(pairs, seed))
    _, lambda_safe = project_loser(errors, mu)
    ones = torch.ones(pairs)
    change, natural = winner_change(errors, lambda_safe, ones, ones)
    assert_preserved(change, natural, 0.0)


def test_above_one_it_can_harm_the_winner():
    winner, loser = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.9, 0.1]])
    errors = errors_from_residuals(winner, loser)
    _, lambda_safe = project_loser(errors, 1.5, lambda_max=10.0)
    change, _ = winner_change(errors, lambda_safe, torch.ones(1), torch.ones(1))
    assert change.item() > 0


def test_at_equal_norms_the_two_rules_pull_in_different_directions():
    near, far = (
        errors_from_residuals(torch.tensor([[1.0, 0.0]]), torch.tensor([[c, (1 - c * c) ** 0.5]]))
        for c in (0.9, 0.5)
    )
    published = [preserve_winner(errors, 0.6, "pair")[1].item() for errors in (near, far)]
    projected = [project_loser(errors, 1.0)[1].item() for errors in (near, far)]
    assert published == pytest.approx([0.4 / 0.9, 0.4 / 0.5])
    assert projected == pytest.approx([0.9, 0.5])


def test_the_edges():
    winner = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [3.0, 0.0]])
    loser = torch.tensor([[-1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    _, found = project_loser(errors_from_residuals(winner, loser), 1.0, 0.25, 0.75)
    assert found.tolist() == [0.25, 0.25, 0.25, 0.25, 0.75]


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_values_stay_and_the_losers_gradient_is_scaled(name):
    pred, errors = make_errors(requires_grad=True)
    guarded, lambda_safe, would_be = ProjectLoser(mu=0.7)(errors, None)
    assert torch.equal(lambda_safe, would_be)
    assert torch.equal(guarded.loser, errors.loser)
    objective = CLOSED_FORM[name]
    (plain,) = torch.autograd.grad(objective(errors).loss.sum(), pred, retain_graph=True)
    (scaled,) = torch.autograd.grad(objective(guarded).loss.sum(), pred)
    torch.testing.assert_close(scaled[:3], plain[:3])
    torch.testing.assert_close(scaled[3:], lambda_safe.view(3, 1, 1, 1) * plain[3:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": 0.0}, "mu must be a finite number > 0"),
        ({"mu": float("nan")}, "mu must be a finite number > 0"),
        ({"mu": 1.0, "lambda_min": 0.5, "lambda_max": 0.4}, "lambda_min <= lambda_max"),
        ({"mu": 1.0, "lambda_min": -0.1}, "0 <= lambda_min"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        project_loser(make_errors()[1], **options)
    if "lambda_min" in options:
        with pytest.raises(ValueError, match=message):
            ProjectLoser(**options)
