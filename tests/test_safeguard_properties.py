"""Invariants of lambda over random batches, and the first-order promise in output space.

In output space winner and loser share one Jacobian, so a step along minus the gradient moves the
winners' predictions by -(a r_w - lambda b r_l), and their error by -2 <r_w, a r_w - lambda b r_l>
(over the number of elements). The natural change, without a loser, is -2 a <r_w, r_w>.
"""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from sdpo_exp.objectives.dpo import dpo_loss, dpo_weights
from sdpo_exp.safeguard import preserve_winner
from sdpo_exp.types import PairErrors, PairWeights
from tests.factories import errors_from_means, errors_from_residuals, make_errors

SCOPES = ("microbatch", "pair", "global")
MU = st.floats(0, 1, allow_subnormal=False)
SEEDS = st.integers(0, 2**32 - 1)
PAIRS = st.integers(1, 6)


def residuals(pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Winner and loser residuals (pairs, 7) of widely differing size and alignment."""
    generator = torch.Generator().manual_seed(seed)
    winner, own = torch.randn(2, pairs, 7, generator=generator)
    alignment, size = torch.randn(2, pairs, 1, generator=generator)
    return winner * 10 ** (size / 2), alignment * winner + own * 0.5


def random_weights(pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two non-negative weights per pair, spread over decades, about a quarter of them zero."""
    generator = torch.Generator().manual_seed(seed + 1)
    weights = 10 ** (2 * torch.randn(2, pairs, generator=generator))
    zero = torch.rand(2, pairs, generator=generator) < 0.25
    winner, loser = torch.where(zero, 0.0, weights)
    return winner, loser


def winner_change(errors: PairErrors, lambda_safe: Tensor, a: Tensor, b: Tensor) -> tuple:
    """float64 first-order and natural change of the winners' errors, (B,), up to 2/N."""
    winner, loser = errors.winner_residual.double(), errors.loser_residual.double()
    natural = -a.double() * (winner * winner).sum(1)
    pushed = lambda_safe.double() * b.double() * (winner * loser).sum(1)
    return natural + pushed, natural


def assert_preserved(change: Tensor, natural: Tensor, mu: float) -> None:
    assert (change <= mu * natural + 1e-5 * natural.abs() + 1e-30).all()


@given(PAIRS, SEEDS, MU, st.sampled_from(SCOPES), st.booleans(), st.booleans())
def test_lambda_lies_in_the_unit_interval(pairs, seed, mu, scope, weighted, compat):
    errors = errors_from_residuals(*residuals(pairs, seed))
    weights = random_weights(pairs, seed) if weighted else None
    if compat:
        scope, weights = "microbatch", None
    _, lambda_safe = preserve_winner(errors, mu, scope, weights, official_compat=compat)
    assert ((lambda_safe >= 0) & (lambda_safe <= 1)).all()


@given(PAIRS, SEEDS, MU, st.sampled_from(SCOPES), st.integers(-20, 20))
def test_a_common_power_of_two_changes_no_bit(pairs, seed, mu, scope, exponent):
    winner, loser = residuals(pairs, seed)
    scaled = errors_from_residuals(winner * 2.0**exponent, loser * 2.0**exponent)
    _, expected = preserve_winner(errors_from_residuals(winner, loser), mu, scope)
    assert torch.equal(preserve_winner(scaled, mu, scope)[1], expected)


@given(PAIRS, SEEDS, MU, st.sampled_from(SCOPES), st.floats(1e-6, 1e6))
def test_a_common_scale_changes_nothing_but_rounding(pairs, seed, mu, scope, scale):
    winner, loser = residuals(pairs, seed)
    inner = (winner * loser).sum(1)
    size = winner.norm(dim=1) * loser.norm(dim=1)
    assume((inner.abs() > 1e-2 * size).all() and inner.sum().abs() > 1e-2 * size.sum())
    scaled = errors_from_residuals(winner * scale, loser * scale)
    _, expected = preserve_winner(errors_from_residuals(winner, loser), mu, scope)
    actual = preserve_winner(scaled, mu, scope)[1]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@given(SEEDS, MU, st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_pair_lambda_is_the_same_in_every_batch_layout(seed, mu, sizes):
    winner, loser = residuals(sum(sizes), seed)
    _, whole = preserve_winner(errors_from_residuals(winner, loser), mu, "pair")
    parts = zip(winner.split(sizes), loser.split(sizes), strict=True)
    split = [preserve_winner(errors_from_residuals(*part), mu, "pair")[1] for part in parts]
    assert torch.equal(torch.cat(split), whole)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pair_lambda_is_the_same_in_every_layout_of_full_sized_latents(size):
    _, errors = make_errors(pairs=5, shape=(4, 64, 64), seed=9)
    parts = zip(errors.winner_residual.split(size), errors.loser_residual.split(size), strict=True)
    split = [preserve_winner(errors_from_residuals(*part), 0.5, "pair")[1] for part in parts]
    assert torch.equal(torch.cat(split), preserve_winner(errors, 0.5, "pair")[1])


@given(PAIRS, SEEDS, MU, st.randoms(use_true_random=False))
def test_pair_lambda_follows_a_permutation_of_the_pairs(pairs, seed, mu, random):
    winner, loser = residuals(pairs, seed)
    order = list(range(pairs))
    random.shuffle(order)
    _, lambda_safe = preserve_winner(errors_from_residuals(winner, loser), mu, "pair")
    _, permuted = preserve_winner(errors_from_residuals(winner[order], loser[order]), mu, "pair")
    assert torch.equal(permuted, lambda_safe[order])


@given(PAIRS, SEEDS, MU, MU, st.sampled_from(SCOPES), st.booleans())
def test_lambda_never_grows_with_mu(pairs, seed, mu, other, scope, weighted):
    errors = errors_from_residuals(*residuals(pairs, seed))
    weights = random_weights(pairs, seed) if weighted else None
    _, loose = preserve_winner(errors, min(mu, other), scope, weights)
    _, tight = preserve_winner(errors, max(mu, other), scope, weights)
    assert (tight <= loose).all()


@given(PAIRS, SEEDS, MU)
def test_pair_scope_preserves_each_winner_at_any_equal_weights(pairs, seed, mu):
    errors = errors_from_residuals(*residuals(pairs, seed))
    weight, _ = random_weights(pairs, seed)
    _, lambda_safe = preserve_winner(errors, mu, "pair")
    assert_preserved(*winner_change(errors, lambda_safe, weight, weight), mu)


@given(PAIRS, SEEDS, MU)
def test_weighted_pair_scope_preserves_each_winner_at_unequal_weights(pairs, seed, mu):
    errors = errors_from_residuals(*residuals(pairs, seed))
    a, b = random_weights(pairs, seed)
    _, lambda_safe = preserve_winner(errors, mu, "pair", weights=(a, b))
    assert_preserved(*winner_change(errors, lambda_safe, a, b), mu)


@given(PAIRS, SEEDS, MU)
def test_weighted_microbatch_preserves_the_winners_together(pairs, seed, mu):
    errors = errors_from_residuals(*residuals(pairs, seed))
    a, b = random_weights(pairs, seed)
    _, lambda_safe = preserve_winner(errors, mu, "microbatch", weights=PairWeights(a, b))
    change, natural = winner_change(errors, lambda_safe, a, b)
    slack = 1e-5 * (b * (errors.winner_residual * errors.loser_residual).sum(1).abs()).sum()
    assert change.sum() <= mu * natural.sum() + 1e-5 * natural.sum().abs() + slack


@given(PAIRS, SEEDS, MU)
def test_plain_microbatch_preserves_the_winners_together_at_equal_weights(pairs, seed, mu):
    errors = errors_from_residuals(*residuals(pairs, seed))
    _, lambda_safe = preserve_winner(errors, mu, "microbatch")
    ones = torch.ones(pairs)
    change, natural = winner_change(errors, lambda_safe, ones, ones)
    slack = 1e-5 * (errors.winner_residual * errors.loser_residual).sum(1).abs().sum()
    assert change.sum() <= mu * natural.sum() + 1e-5 * natural.sum().abs() + slack


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
def test_plain_microbatch_fails_at_unequal_weights_and_weighted_does_not(mu):
    # <r_w, r_w> = (1, 1), <r_w, r_l> = (3, -2.96): the sums 2 and 0.04 give lambda 1. But the
    # second pair is long decided (weight 1e-3), and the first alone pushes its winner away:
    # change = -(1 - 3) - 0.001 (1 + 2.96) > 0.
    errors = errors_from_residuals(torch.ones(2, 1), torch.tensor([[3.0], [-2.96]]))
    weight = torch.tensor([1.0, 1e-3])
    _, plain = preserve_winner(errors, mu, "microbatch")
    assert plain.tolist() == [1.0, 1.0]
    change, _ = winner_change(errors, plain, weight, weight)
    assert change.sum() > 1.9
    _, weighted = preserve_winner(errors, mu, "microbatch", weights=(weight, weight))
    change, natural = winner_change(errors, weighted, weight, weight)
    assert change.sum() <= (mu - 1e-5) * natural.sum()


@given(PAIRS, SEEDS, MU, st.sampled_from(["pair", "weighted"]))
def test_the_gradient_that_autograd_computes_for_dpo_keeps_the_promise(pairs, seed, mu, rule):
    pred, errors = make_errors(pairs, (7,), seed, moved=0.5, requires_grad=True)
    weights = dpo_weights(errors, beta=20.0) if rule == "weighted" else None
    scope = "pair" if rule == "pair" else "microbatch"
    guarded, _ = preserve_winner(errors, mu, scope, weights)
    (gradient,) = torch.autograd.grad(dpo_loss(guarded, beta=20.0).loss.sum(), pred)
    winner, loser = gradient.double().chunk(2)
    residual = errors.winner_residual.detach().double()
    change = -(residual * (winner + loser)).sum(1)
    natural = -(residual * winner).sum(1)
    if rule == "weighted":
        slack = 1e-5 * (residual * loser).sum(1).abs().sum()
        assert change.sum() <= mu * natural.sum() + 1e-5 * natural.sum().abs() + slack
    else:
        assert_preserved(change, natural, mu)


def test_without_the_safeguard_the_winner_does_get_worse():
    pred, errors = make_errors(4, (7,), seed=0, moved=0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(dpo_loss(errors, beta=20.0).loss.sum(), pred)
    winner, loser = gradient.chunk(2)
    assert (-(errors.winner_residual * (winner + loser)).sum(1) > 0).any()


def test_lambda_ignores_the_errors_and_reads_the_residuals():
    errors = errors_from_means([0.1, 0.2], [0.3, 0.4], [0.1, 0.2], [0.3, 0.4])
    assert preserve_winner(errors, 0.5)[1].tolist() == [1.0, 1.0]
