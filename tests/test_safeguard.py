import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sdpo_exp.safeguard import (
    ConstantWeight,
    NoSafeguard,
    PreserveWinner,
    constant_weight,
    no_safeguard,
    preserve_winner,
    scale_loser_gradient,
)
from sdpo_exp.types import PairErrors, PairWeights
from tests.factories import (
    CLOSED_FORM,
    OBJECTIVES,
    errors_from_residuals,
    make_errors,
    make_predictions,
)

NAN, INF = float("nan"), float("inf")


def hand_errors() -> PairErrors:
    """<r_w, r_w> = (1, 2) and <r_w, r_l> = (1, 4)."""
    return errors_from_residuals(
        torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 1.0], [3.0, 1.0]])
    )


def lambda_of(winner: list[float], loser: list[float], mu: float, **options) -> float:
    errors = errors_from_residuals(torch.tensor([winner]), torch.tensor([loser]))
    return preserve_winner(errors, mu, **options)[1].item()


@pytest.mark.parametrize(
    ("scope", "expected"),
    # mu = 0.2. Pair: 0.8 * 1/1 and 0.8 * 2/4. Micro-batch: 0.8 * (1 + 2)/(1 + 4).
    [("pair", [0.8, 0.4]), ("microbatch", [0.48, 0.48]), ("global", [0.48, 0.48])],
)
def test_lambda_by_hand(scope, expected):
    _, lambda_safe = preserve_winner(hand_errors(), 0.2, scope)
    torch.testing.assert_close(lambda_safe, torch.tensor(expected))


@pytest.mark.parametrize(
    ("scope", "weights", "expected"),
    [
        # a = (1, 3), b = (2, 1): 0.8 * (1*1 + 3*2)/(2*1 + 1*4) = 0.8 * 7/6.
        ("microbatch", ([1.0, 3.0], [2.0, 1.0]), [14 / 15, 14 / 15]),
        # 0.8 * 1/2 and 0.8 * 6/4 = 1.2, clipped.
        ("pair", ([1.0, 3.0], [2.0, 1.0]), [0.4, 1.0]),
        # a is clipped at 0: 0.8 * (0 + 2)/(1 + 4).
        ("microbatch", ([-7.0, 1.0], [1.0, 1.0]), [0.32, 0.32]),
        # The weighted inner product 1 - 4 is negative: nothing to guard against.
        ("microbatch", ([1.0, 1.0], [1.0, -1.0]), [1.0, 1.0]),
    ],
)
def test_weighted_lambda_by_hand(scope, weights, expected):
    pair_weights = PairWeights(*map(torch.tensor, weights))
    _, lambda_safe = preserve_winner(hand_errors(), 0.2, scope, weights=pair_weights)
    torch.testing.assert_close(lambda_safe, torch.tensor(expected))
    _, from_tuple = preserve_winner(hand_errors(), 0.2, scope, weights=tuple(pair_weights))
    assert torch.equal(from_tuple, lambda_safe)


@pytest.mark.parametrize("scope", ["microbatch", "pair", "global"])
@pytest.mark.parametrize(
    ("winner", "loser", "mu", "expected"),
    [
        ([0.0, 0.0], [1.0, 2.0], 0.9, 1.0),  # a perfect winner has nothing to lose
        ([1.0, 2.0], [1.0, 1.0], 1.0, 0.0),  # mu = 1, aligned: the loser is dropped
        ([1.0, 2.0], [-1.0, 0.0], 1.0, 1.0),  # mu = 1, not aligned
        ([3.0, -4.0], [3.0, -4.0], 0.25, 0.75),  # equal residuals: 1 - mu
        ([3.0, -4.0], [3.0, -4.0], 0.0, 1.0),
        ([1.0, 1.0], [-1.0, -2.0], 0.5, 1.0),  # negative inner product
        ([1.0, 0.0], [0.0, 1.0], 0.5, 1.0),  # orthogonal: exactly zero is not aligned
        ([4.0, 0.0], [1.0, 0.0], 0.5, 1.0),  # ratio 2 is clipped
        ([1e-20, 0.0], [1.0, 0.0], 0.0, 0.0),  # <r_w, r_w> underflows: still nothing harmful
    ],
)
def test_edge_cases(scope, winner, loser, mu, expected):
    assert lambda_of(winner, loser, mu, scope=scope) == expected


def test_zero_residuals_give_one():
    assert lambda_of([0.0], [0.0], 0.5) == 1.0
    assert lambda_of([1.0], [0.0], 0.5) == 1.0


def test_microbatch_depends_on_the_layout_and_pair_does_not():
    pred, ref, target = make_predictions(pairs=4, seed=1)
    whole = PairErrors.from_predictions(pred, ref, target)
    rows = [torch.tensor([0, 1, 4, 5]), torch.tensor([2, 3, 6, 7])]
    parts = [PairErrors.from_predictions(pred[i], ref[i], target[i]) for i in rows]
    for scope, same in (("microbatch", False), ("pair", True)):
        together = preserve_winner(whole, 0.5, scope)[1]
        apart = torch.cat([preserve_winner(part, 0.5, scope)[1] for part in parts])
        assert torch.allclose(together, apart, rtol=1e-6) == same


@pytest.mark.parametrize("scope", ["microbatch", "pair", "global"])
def test_lambda_is_detached_float32_per_pair(scope):
    _, errors = make_errors(pairs=3, requires_grad=True)
    _, lambda_safe = preserve_winner(errors, 0.5, scope)
    assert lambda_safe.shape == (3,)
    assert lambda_safe.dtype == torch.float32
    assert not lambda_safe.requires_grad


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("scope", ["microbatch", "pair"])
def test_forward_is_bit_unchanged_and_the_loser_gradient_scaled_by_lambda(name, scope):
    _, errors = make_errors(seed=3, requires_grad=True)
    guarded, lambda_safe = preserve_winner(errors, 0.6, scope)
    assert 0 < lambda_safe.min() < 1
    plain_out, guarded_out = OBJECTIVES[name](errors), OBJECTIVES[name](guarded)
    assert torch.equal(guarded.loser, errors.loser)
    assert torch.equal(plain_out.loss, guarded_out.loss)
    assert torch.equal(plain_out.logits, guarded_out.logits)

    def gradients(loss):
        leaves = (errors.winner, errors.winner_residual, errors.loser)
        return torch.autograd.grad(loss.sum(), leaves, retain_graph=True, materialize_grads=True)

    plain, scaled = gradients(plain_out.loss), gradients(guarded_out.loss)
    assert torch.equal(scaled[0], plain[0])
    assert torch.equal(scaled[1], plain[1])
    assert torch.equal(scaled[2], lambda_safe * plain[2])


def test_gradient_wrt_predictions_is_scaled_in_the_loser_half_only():
    pred, errors = make_errors(seed=4, requires_grad=True)
    guarded, lambda_safe = preserve_winner(errors, 0.6, "pair")
    plain, scaled = (
        torch.autograd.grad(CLOSED_FORM["dpo"](e).loss.mean(), pred, retain_graph=True)[0]
        for e in (errors, guarded)
    )
    assert torch.equal(scaled[:3], plain[:3])
    torch.testing.assert_close(scaled[3:], lambda_safe.view(-1, 1, 1, 1) * plain[3:])


def test_guarded_errors_do_not_carry_gradient_into_lambda():
    _, errors = make_errors(seed=4)
    lambda_safe = torch.tensor([0.1, 0.5, 1.0], requires_grad=True)
    assert not scale_loser_gradient(errors, lambda_safe).loser.requires_grad


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 2.5])
def test_constant_weight_scales_every_loser_gradient(weight):
    _, errors = make_errors(seed=5, requires_grad=True)
    guarded, lambda_safe = constant_weight(errors, weight)
    assert torch.equal(guarded.loser, errors.loser)
    assert lambda_safe.tolist() == pytest.approx([weight] * 3)
    (gradient,) = torch.autograd.grad(guarded.loser.sum(), errors.loser)
    assert torch.equal(gradient, lambda_safe)


@pytest.mark.parametrize("weight", [-0.1, NAN, INF])
def test_constant_weight_refuses_a_weight_that_is_no_finite_non_negative_number(weight):
    _, errors = make_errors()
    with pytest.raises(ValueError, match=str(weight)):
        constant_weight(errors, weight)


def test_no_safeguard_returns_the_errors_and_ones():
    _, errors = make_errors()
    unchanged, lambda_safe = no_safeguard(errors)
    assert unchanged is errors
    assert lambda_safe.tolist() == [1.0, 1.0, 1.0]


def test_classes_report_what_lambda_would_have_been():
    _, errors = make_errors(seed=6, requires_grad=True)
    _, expected = preserve_winner(errors, 0.7)
    assert 0 < expected[0] < 1

    on = PreserveWinner(mu=0.7)(errors, None)
    assert torch.equal(on.lambda_safe, expected)
    assert torch.equal(on.lambda_would_be, expected)

    off = NoSafeguard(would_be_mu=0.7)(errors, None)
    assert off.errors is errors
    assert off.lambda_safe.tolist() == [1.0] * 3
    assert torch.equal(off.lambda_would_be, expected)

    constant = ConstantWeight(weight=0.3, would_be_mu=0.7)(errors, None)
    assert constant.lambda_safe.tolist() == pytest.approx([0.3] * 3)
    assert torch.equal(constant.lambda_would_be, expected)
    (gradient,) = torch.autograd.grad(constant.errors.loser.sum(), errors.loser)
    assert gradient.tolist() == pytest.approx([0.3] * 3)


def test_preserve_winner_class_uses_weights_only_when_weighted():
    errors, weights = hand_errors(), PairWeights(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 1.0]))
    plain = PreserveWinner(mu=0.2)(errors, weights).lambda_safe
    weighted = PreserveWinner(mu=0.2, weighted=True)(errors, weights).lambda_safe
    torch.testing.assert_close(plain, torch.tensor([0.48, 0.48]))
    torch.testing.assert_close(weighted, torch.tensor([14 / 15, 14 / 15]))
    with pytest.raises(ValueError, match="weighted"):
        PreserveWinner(mu=0.2, weighted=True)(errors, None)


def test_preserve_winner_class_passes_scope_and_arithmetic_on():
    errors = hand_errors()
    pair = PreserveWinner(mu=0.2, scope="pair")(errors, None).lambda_safe
    torch.testing.assert_close(pair, torch.tensor([0.8, 0.4]))
    small = errors_from_residuals(torch.full((1, 4), 1e-5), torch.full((1, 4), 1e-5))
    compat = PreserveWinner(mu=0.2, official_compat=True)(small, None).lambda_safe
    assert torch.equal(compat, preserve_winner(small, 0.2, official_compat=True)[1])
    assert compat.item() < 0.4


@pytest.mark.parametrize("mu", [-0.01, 1.01, NAN, INF, -INF])
def test_mu_outside_the_unit_interval_is_refused(mu):
    with pytest.raises(ValueError, match=rf"mu must lie in \[0, 1\], got {mu}"):
        preserve_winner(hand_errors(), mu)


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="'batch'"):
        preserve_winner(hand_errors(), 0.5, "batch")


@pytest.mark.parametrize("shape", [(3,), (2, 1), ()])
def test_weights_of_another_shape_are_refused(shape):
    good, bad = torch.ones(2), torch.ones(shape)
    for weights in ((good, bad), (bad, good), PairWeights(bad, bad)):
        with pytest.raises(ValueError, match="weights must be two"):
            preserve_winner(hand_errors(), 0.5, weights=weights)


def test_official_compat_refuses_other_scopes_and_weights():
    ones = torch.ones(2)
    for options in ({"scope": "pair"}, {"scope": "global"}, {"weights": (ones, ones)}):
        with pytest.raises(ValueError, match="official_compat"):
            preserve_winner(hand_errors(), 0.5, official_compat=True, **options)


def public_lambda(pred, target, mu):
    """The published arithmetic: gradients of the two half-batch means, +1e-9, clip."""
    gradients = []
    for half_pred, half_target in zip(pred.chunk(2), target.chunk(2), strict=True):
        half_pred = half_pred.detach().requires_grad_()
        loss = torch.nn.functional.mse_loss(half_pred, half_target)
        gradients.append(torch.autograd.grad(loss, half_pred)[0])
    winner, loser = gradients
    inner = (winner * loser).sum()
    ratio = (1 - mu) * (winner * winner).sum() / (inner + 1e-9)
    return torch.clamp(ratio, 0, 1) if inner > 0 else torch.ones(())


@pytest.mark.parametrize("mu", [0.0, 0.2, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [1.0, 0.003])
def test_official_compat_is_the_published_arithmetic(mu, seed, scale):
    pred, ref, target = make_predictions(pairs=4, shape=(4, 8, 8), seed=seed)
    if seed == 5:
        pred[4:] = target[4:] - (pred[:4] - target[:4])  # opposed residuals
    pred = target + scale * (pred - target)
    errors = PairErrors.from_predictions(pred, ref, target)
    _, lambda_safe = preserve_winner(errors, mu, official_compat=True)
    assert lambda_safe.shape == (4,)
    expected = public_lambda(pred, target, mu).expand(4)
    torch.testing.assert_close(lambda_safe, expected, rtol=3e-6, atol=1e-7)


def test_official_compat_epsilon_is_visible_for_small_errors_on_many_elements():
    # Equal residuals of mean square 0.001 on N = 8 * 65,536 elements (SDXL): the sums of squared
    # gradients are 4/N^2 * N * 0.001 = 7.63e-9, so 1e-9 lowers lambda by 1/(1 + 7.63) = 11.6 %.
    residual = torch.full((8, 4, 128, 128), 0.001**0.5)
    errors = errors_from_residuals(residual, residual)
    _, compat = preserve_winner(errors, 0.6, official_compat=True)
    _, plain = preserve_winner(errors, 0.6)
    assert plain[0].item() == pytest.approx(0.4, rel=1e-5)
    assert compat[0].item() == pytest.approx(0.4 * 7.63 / 8.63, rel=1e-3)
    pred = torch.cat([residual, residual])
    expected = public_lambda(pred, torch.zeros_like(pred), 0.6)
    assert compat[0].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(
    # The squares underflow in the predictions' own dtype: 2e-4^2 = 4e-8 < 6e-8 (fp16).
    ("dtype", "scale"),
    [(torch.float16, 2e-4), (torch.float16, 2e-5), (torch.bfloat16, 1e-15)],
)
@pytest.mark.parametrize("scope", ["microbatch", "pair"])
def test_tiny_half_precision_residuals_do_not_underflow_to_one(dtype, scale, scope):
    pred, _, target = make_predictions(pairs=2, shape=(4, 8, 8), seed=7)
    residual = ((pred - target) * scale).to(dtype)
    zero = torch.zeros_like(residual)
    errors = PairErrors.from_predictions(residual, zero, zero)
    _, lambda_safe = preserve_winner(errors, 0.5, scope)
    winner, loser = residual.double().chunk(2)
    sums = [(winner * other).flatten(1).sum(1) for other in (winner, loser)]
    if scope == "microbatch":
        sums = [values.sum().expand(2) for values in sums]
    expected = (0.5 * sums[0] / sums[1]).clamp(0, 1)
    assert expected.max() < 0.9
    torch.testing.assert_close(lambda_safe.double(), expected, rtol=1e-5, atol=0)


class NoHostRead(TorchDispatchMode):
    """Raises on every operator whose result the host has to wait for."""

    reads = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or name in self.reads:
            raise AssertionError(f"host read: {func}")
        return func(*args, **(kwargs or {}))


def test_the_host_read_detector_detects():
    tensor = torch.ones(2)
    for read in (lambda: tensor[0].item(), lambda: bool(tensor.any()), lambda: tensor[tensor > 0]):
        with NoHostRead(), pytest.raises(AssertionError, match="host read"):
            read()
    with NoHostRead(), pytest.raises(AssertionError, match="host read"):
        PairErrors.from_predictions(*make_predictions(), check_finite=True)


def test_nothing_in_a_step_reads_back_to_the_host():
    inputs = make_predictions(seed=8)
    inputs[0].requires_grad_()
    weights = PairWeights(torch.ones(3), torch.ones(3))
    with NoHostRead():
        errors = PairErrors.from_predictions(*inputs)
        for scope in ("microbatch", "pair", "global"):
            preserve_winner(errors, 0.5, scope)
            preserve_winner(errors, 0.5, scope, weights=weights)
        guarded, _ = preserve_winner(errors, 0.5, official_compat=True)
        constant_weight(errors, 0.5)
        NoSafeguard(would_be_mu=0.5)(errors, None)
        for objective in OBJECTIVES.values():
            objective(guarded).loss.mean().backward(retain_graph=True)
        for objective in CLOSED_FORM.values():
            objective.weights(guarded)
        assert errors.cosine.shape == (3,)
