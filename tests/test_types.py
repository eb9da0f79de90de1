import dataclasses
import re

import pytest
import torch
from torch import nn

from sdpo_exp.types import PairErrors
from tests.factories import double_errors, make_errors, make_predictions

FIELDS = [field.name for field in dataclasses.fields(PairErrors) if field.name != "weight"]


def test_errors_by_hand():
    # One pair of two elements, target (1, 0) and (2, -1).
    # Winner: p - y = (2, 2) - (1, 0) = (1, 2), mean square (1 + 4) / 2 = 2.5.
    # Loser:  p - y = (2, 2) - (2, -1) = (0, 3), mean square 9 / 2 = 4.5.
    # Reference: (1, 1) - (1, 0) = (0, 1) -> 0.5 and (4, -1) - (2, -1) = (2, 0) -> 2.
    pred = torch.tensor([[2.0, 2.0], [2.0, 2.0]])
    ref = torch.tensor([[1.0, 1.0], [4.0, -1.0]])
    target = torch.tensor([[1.0, 0.0], [2.0, -1.0]])
    errors = PairErrors.from_predictions(pred, ref, target)
    assert errors.winner.tolist() == [2.5]
    assert errors.loser.tolist() == [4.5]
    assert errors.ref_winner.tolist() == [0.5]
    assert errors.ref_loser.tolist() == [2.0]
    assert errors.winner_residual.tolist() == [[1.0, 2.0]]
    assert errors.loser_residual.tolist() == [[0.0, 3.0]]
    assert errors.winner_shift.tolist() == [[1.0, 1.0]]
    # Delta = (2.5 - 4.5) - (0.5 - 2) = -0.5; cosine = (1*0 + 2*3) / (sqrt(5) * 3) = 2 / sqrt(5).
    assert errors.delta.tolist() == [-0.5]
    assert errors.cosine.item() == pytest.approx(2 / 5**0.5)


def test_winners_are_the_first_half_and_axes_after_the_first_are_averaged():
    # Row i of four rows of 2 x 3 elements is constant i: L = i^2, winners 0 and 1, losers 2 and 3.
    pred = torch.arange(4.0).view(4, 1, 1).expand(4, 2, 3)
    zero = torch.zeros_like(pred)
    errors = PairErrors.from_predictions(pred, zero, zero)
    assert errors.winner.tolist() == [0.0, 1.0]
    assert errors.loser.tolist() == [4.0, 9.0]
    assert errors.winner_shift.shape == (2, 2, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_is_reduced_in_float32(dtype):
    inputs = [tensor.to(dtype) for tensor in make_predictions(seed=1)]
    errors = PairErrors.from_predictions(*inputs)
    same = PairErrors.from_predictions(*[tensor.float() for tensor in inputs])
    for name in FIELDS:
        assert getattr(errors, name).dtype == torch.float32
        assert torch.equal(getattr(errors, name), getattr(same, name))


def test_mixed_dtypes_are_each_cast_before_the_subtraction():
    pred, ref, target = make_predictions(seed=2)
    errors = PairErrors.from_predictions(pred.bfloat16(), ref.half(), target.double())
    same = PairErrors.from_predictions(pred.bfloat16().float(), ref.half().float(), target)
    assert torch.equal(errors.delta, same.delta)


def test_an_outer_autocast_changes_nothing():
    pred, ref, target = (tensor.bfloat16() for tensor in make_predictions(seed=3))
    plain = PairErrors.from_predictions(pred, ref, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = PairErrors.from_predictions(pred, ref, target)
    for name in FIELDS:
        assert getattr(inside, name).dtype == torch.float32
        assert torch.equal(getattr(inside, name), getattr(plain, name))


def test_equal_policy_and_reference_give_exactly_zero_margin():
    pred, _, target = (tensor.bfloat16() for tensor in make_predictions(seed=4))
    errors = PairErrors.from_predictions(pred, pred.clone(), target)
    assert not errors.delta.any()
    assert not errors.winner_shift.any()


def test_only_the_policy_carries_gradient():
    pred, ref, target = (tensor.requires_grad_() for tensor in make_predictions(seed=5))
    errors = PairErrors.from_predictions(pred, ref, target)
    assert not errors.ref_winner.requires_grad
    assert not errors.ref_loser.requires_grad
    (errors.delta.sum() + errors.winner_shift.sum()).backward()
    assert pred.grad is not None
    assert ref.grad is None
    assert target.grad is None


def test_gradient_of_an_error_is_twice_the_residual_over_its_elements():
    pred, errors = make_errors(pairs=2, shape=(5,), seed=6, requires_grad=True)
    errors.winner[1].backward()
    expected = torch.zeros_like(pred)
    expected[1] = 2 * errors.winner_residual[1].detach() / 5
    torch.testing.assert_close(pred.grad, expected)


@pytest.mark.parametrize("name", ["pred", "ref", "target"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_a_tensor_that_is_not_floating_point_is_named(name, dtype):
    inputs = dict.fromkeys(("pred", "ref", "target"), torch.zeros(2, 3))
    inputs[name] = torch.zeros(2, 3, dtype=dtype)
    with pytest.raises(TypeError, match=rf"^{name} .*{dtype}"):
        PairErrors.from_predictions(**inputs)


def test_unequal_shapes_are_shown():
    two, four = torch.zeros(2, 3), torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"'ref': \(4, 3\)"):
        PairErrors.from_predictions(two, four, two)
    with pytest.raises(ValueError, match=r"'target': \(2, 1\)"):
        PairErrors.from_predictions(two, two, torch.zeros(2, 1))


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (2,), ()])
def test_an_odd_empty_or_flat_first_axis_is_refused_with_the_shape(shape):
    tensor = torch.zeros(shape)
    with pytest.raises(ValueError, match=re.escape(f"got shape {shape}")):
        PairErrors.from_predictions(tensor, tensor, tensor)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("row", "half"), [(1, "winner"), (2, "loser")])
@pytest.mark.parametrize(
    ("index", "role"), [(0, "policy prediction"), (1, "reference prediction"), (2, "target")]
)
def test_check_finite_names_the_tensor_and_the_half(index, role, row, half, value):
    inputs = make_predictions(pairs=2)
    inputs[index][row, 0, 0, 0] = value
    with pytest.raises(ValueError, match=f"the {role} of the {half} half"):
        PairErrors.from_predictions(*inputs, check_finite=True)
    PairErrors.from_predictions(*inputs)


def test_check_finite_accepts_finite_values():
    PairErrors.from_predictions(*make_predictions(), check_finite=True)


def test_cosine_is_per_pair_detached_and_survives_a_zero_residual():
    winner = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1e-12, 0.0]])
    loser = torch.tensor([[-2.0, 0.0], [1.0, 0.0], [1.0, 0.0], [3e-12, 0.0]])
    pred = torch.cat([winner, loser]).requires_grad_()
    zero = torch.zeros_like(pred)
    cosine = PairErrors.from_predictions(pred, zero, zero).cosine
    assert not cosine.requires_grad
    expected = torch.tensor([-1.0, 0.5**0.5, 0.0, 1.0])
    torch.testing.assert_close(cosine, expected)
    assert nn.functional.cosine_similarity(winner, loser)[3] < 0.1  # the default eps fails here


def test_with_loser_replaces_the_loser_error_and_its_drift_only():
    _, errors = make_errors()
    other = errors.with_loser(errors.loser + 1)
    assert torch.equal(other.loser, errors.loser + 1)
    torch.testing.assert_close(other.loser_drift, errors.loser_drift + 1)
    for name in FIELDS:
        if not name.startswith("loser"):
            assert getattr(other, name) is getattr(errors, name)
    assert other.loser_residual is errors.loser_residual


def test_with_loser_gradient_scales_gradients_and_keeps_values():
    pred, errors = make_errors(pairs=3, requires_grad=True)
    factor = torch.tensor([0.0, 0.5, 1.0])
    scaled = errors.with_loser_gradient(factor)
    for name in FIELDS:
        assert torch.equal(getattr(scaled, name), getattr(errors, name))
    for name in ("loser", "loser_drift"):
        plain, ours = (
            torch.autograd.grad(getattr(e, name).sum(), pred, retain_graph=True)[0][3:]
            for e in (errors, scaled)
        )
        torch.testing.assert_close(ours, factor.view(-1, 1, 1, 1) * plain)


@pytest.mark.parametrize("beta", [200.0, 5000.0])
@pytest.mark.parametrize(("shift", "times"), [(1e-3, 100), (1e-1, 3)])
def test_the_margin_is_closer_to_float64_than_a_difference_of_means(beta, shift, times):
    generator = torch.Generator().manual_seed(int(beta))
    target, offset, moved = torch.randn(3, 64, 3072, generator=generator)
    ref = target + offset
    pred = ref + shift * moved
    errors = PairErrors.from_predictions(pred, ref, target)
    exact = double_errors(pred, ref, target)
    truth = -0.5 * beta * exact.delta
    means = (errors.winner - errors.loser) - (errors.ref_winner - errors.ref_loser)
    ours, before = (-0.5 * beta * delta - truth for delta in (errors.delta, means))
    assert times * ours.abs().max() < before.abs().max()
    assert ours.abs().max() < 1e-6 * (1 + truth.abs().max())


def test_errors_cannot_be_changed_in_place_of_a_record():
    _, errors = make_errors()
    with pytest.raises(dataclasses.FrozenInstanceError):
        errors.winner = errors.loser
