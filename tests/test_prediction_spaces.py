"""One pair seen as epsilon, v and velocity, and weights w(t) of a pair's errors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sdpo_exp.safeguard import preserve_winner, project_loser
from sdpo_exp.types import NoisyPair, PairErrors
from tests.factories import CLOSED_FORM, OBJECTIVES, make_predictions
from tests.test_safeguard_properties import assert_preserved

TIMES = st.floats(0.02, 0.98)


def in_three_spaces(time: float, seed: int) -> dict[str, PairErrors]:
    """The same x_t, read by the same model, in the three terms that are in use.

    A model's guess of the noise, n', and of the image, x', belong together by x_t = a x' + s n'.
    """
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(1, 3, 4, 4, generator=generator, dtype=torch.float64).repeat(2, 1, 1, 1)
    guess, ref = noise + torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    guess[1] += guess[0] - noise[0]  # partly aligned
    # A variance-preserving x_t is a multiple of a flow's, with a and s divided by their size.
    a, s = 1 - time, time
    size, x_t = (a * a + s * s) ** 0.5, a * image + s * noise

    def told(n: Tensor) -> dict[str, Tensor]:
        x = (x_t - s * n) / a
        return {"epsilon": n, "v": (a * n - s * x) / size, "velocity": n - x}

    of_policy, of_reference, target = told(guess), told(ref), told(noise)
    return {
        space: PairErrors.from_predictions(of_policy[space], of_reference[space], target[space])
        for space in target
    }


@given(TIMES, st.integers(0, 1000), st.sampled_from([0.0, 0.3, 0.9]))
def test_a_pairs_lambda_is_the_same_in_epsilon_v_and_velocity(time, seed, mu):
    errors = in_three_spaces(time, seed)
    for rule in (lambda e: preserve_winner(e, mu, "pair")[1], lambda e: project_loser(e, 1.0)[1]):
        found = [rule(one) for one in errors.values()]
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[2], found[0], rtol=1e-4, atol=1e-5)


@given(TIMES, st.integers(0, 1000))
def test_errors_differ_by_the_known_factors(time, seed):
    errors = in_three_spaces(time, seed)
    squares = (1 - time) ** 2 + time**2
    for name in ("winner", "loser", "ref_winner", "ref_loser"):
        epsilon, v, velocity = (getattr(one, name) for one in errors.values())
        torch.testing.assert_close(velocity * (1 - time) ** 2, epsilon, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(v * (1 - time) ** 2, squares * epsilon, rtol=1e-4, atol=1e-6)


def weighed(weight: Tensor | None, *, grad: bool = False) -> tuple[Tensor, PairErrors]:
    pred, ref, target = make_predictions()
    pred.requires_grad_(grad)
    t = torch.zeros(6)
    return pred, NoisyPair(target, t, target, weight).errors(pred, ref)


WEIGHT = torch.tensor([0.25, 4.0, 1.0])


def test_a_weight_multiplies_every_error():
    plain, found = weighed(None)[1], weighed(WEIGHT)[1]
    for name in ("winner", "loser", "ref_winner", "ref_loser", "delta"):
        torch.testing.assert_close(getattr(found, name), WEIGHT * getattr(plain, name))
    assert plain.weight is None
    torch.testing.assert_close(found.cosine, plain.cosine)


def test_a_weight_of_one_changes_no_bit():
    plain, found = weighed(None)[1], weighed(torch.ones(3))[1]
    assert torch.equal(found.winner, plain.winner)
    assert torch.equal(found.winner_residual, plain.winner_residual)
    for scope in ("pair", "microbatch"):
        assert torch.equal(
            preserve_winner(found, 0.5, scope)[1], preserve_winner(plain, 0.5, scope)[1]
        )


def test_a_weight_leaves_a_pairs_lambda_alone_and_moves_pooled_ones():
    plain, found = weighed(None)[1], weighed(WEIGHT)[1]
    torch.testing.assert_close(
        preserve_winner(found, 0.5, "pair")[1], preserve_winner(plain, 0.5, "pair")[1]
    )
    w, other = plain.winner_residual.flatten(1), plain.loser_residual.flatten(1)
    square = WEIGHT.square()
    expected = 0.5 * (square * (w * w).sum(1)).sum() / (square * (w * other).sum(1)).sum()
    torch.testing.assert_close(
        preserve_winner(found, 0.5)[1], expected.clamp(0, 1).expand(3).contiguous()
    )
    assert not torch.equal(preserve_winner(found, 0.5)[1], preserve_winner(plain, 0.5)[1])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_weighs_its_gradient_too(name):
    """The whole loss is that of an objective of w times the errors: for sft simply w times it."""
    pred, errors = weighed(WEIGHT, grad=True)
    objective = OBJECTIVES[name]
    (found,) = torch.autograd.grad(objective(errors).loss.sum(), pred)
    if name == "sft":
        plain_pred, plain = weighed(None, grad=True)
        (expected,) = torch.autograd.grad((WEIGHT * objective(plain).loss).sum(), plain_pred)
        torch.testing.assert_close(found, expected)
    if name in CLOSED_FORM:
        a, b = CLOSED_FORM[name].weights(errors)
        rows = torch.cat([a * WEIGHT, -b * WEIGHT]).view(6, 1, 1, 1)
        raw = pred.detach() - make_predictions()[2]
        torch.testing.assert_close(found, rows * 2 / raw[0].numel() * raw, rtol=1e-4, atol=1e-7)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_the_weighted_rule_keeps_its_promise_under_weights(name):
    """Total first-order change of the weighted winners' errors, when all predictions move."""
    _, errors = weighed(WEIGHT)
    a, b = CLOSED_FORM[name].weights(errors)
    _, lambda_safe = preserve_winner(errors, 0.3, weights=(a, b))
    raw = [
        r.double().flatten(1) / WEIGHT.double().sqrt().view(3, 1)
        for r in (errors.winner_residual, errors.loser_residual)
    ]
    gradients = [WEIGHT.double().view(3, 1) * r for r in raw]
    natural = -(a.clamp_min(0) * (gradients[0] ** 2).sum(1)).sum()
    pushed = (lambda_safe * b * (gradients[0] * gradients[1]).sum(1)).sum()
    assert_preserved(natural + pushed, natural, 0.3)


def test_a_weight_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"weight must be \(3,\), one value per pair"):
        weighed(torch.ones(6))
