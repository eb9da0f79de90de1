"""Inputs and checks that several test files share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from hypothesis import strategies as st
from torch import Tensor

from sdpo_exp.objectives.dmpo import DMPO
from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.objectives.dspo import DSPO, DSPOSDXL
from sdpo_exp.objectives.hinge import Hinge
from sdpo_exp.objectives.ipo import IPO
from sdpo_exp.objectives.sft import SFT
from sdpo_exp.types import ObjectiveOutput, PairErrors

Objective: TypeAlias = Callable[[PairErrors], ObjectiveOutput]

CLOSED_FORM = {
    "dpo": DPO(beta=20.0),
    "dmpo": DMPO(beta=20.0, alpha=0.01),
    "sft": SFT(),
    "ipo": IPO(beta=2.0),
    "hinge": Hinge(beta=2.0),
}
OBJECTIVES = {**CLOSED_FORM, "dspo": DSPO(beta=2.0), "dspo_sdxl": DSPOSDXL(beta=20.0)}

# Hypothesis cannot draw subnormals while they are flushed (conftest).
LOGITS = st.lists(st.floats(-1e3, 1e3, width=32, allow_subnormal=False), min_size=1, max_size=5)
BETAS = st.floats(0.1, 1e4, allow_subnormal=False)


def make_predictions(
    pairs: int = 3, shape: Sequence[int] = (2, 3, 3), seed: int = 0, *, moved: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    """(pred, ref, target), (2 * pairs, *shape): partly aligned residuals, policy off reference."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(pairs, *shape, generator=generator).repeat(2, *[1] * len(shape))
    own, target, shift = torch.randn(3, 2 * pairs, *shape, generator=generator)
    residual = 0.4 * common + 0.2 * own
    residual[pairs:] *= 1.5  # the loser is further off, so that the safeguard has work to do
    ref = target + residual
    return ref + moved * shift, ref, target


def make_errors(
    pairs: int = 3,
    shape: Sequence[int] = (2, 3, 3),
    seed: int = 0,
    *,
    moved: float = 0.2,
    requires_grad: bool = False,
) -> tuple[Tensor, PairErrors]:
    """Leaf predictions (2 * pairs, *shape) and the errors computed from them."""
    pred, ref, target = make_predictions(pairs, shape, seed, moved=moved)
    pred.requires_grad_(requires_grad)
    return pred, PairErrors.from_predictions(pred, ref, target)


def errors_from_residuals(winner: Tensor, loser: Tensor) -> PairErrors:
    """Errors of given residuals (B, ...): zero target, reference equal to the policy."""
    pred = torch.cat([winner, loser])
    return PairErrors.from_predictions(pred, pred, torch.zeros_like(pred))


def errors_from_means(
    winner: Sequence[float],
    loser: Sequence[float],
    ref_winner: Sequence[float],
    ref_loser: Sequence[float],
) -> PairErrors:
    """Errors given as numbers; L_w and L_l are leaves, the residuals are placeholders."""
    means = [torch.tensor(values) for values in (winner, loser, ref_winner, ref_loser)]
    for leaf in means[:2]:
        leaf.requires_grad_()
    drifts = (means[0] - means[2], means[1] - means[3])
    return PairErrors(*means, *drifts, *[torch.zeros(len(winner), 1)] * 3)


def errors_at_logits(logits: Sequence[float], beta: float) -> PairErrors:
    """Errors with -(beta/2) Delta = `logits` and non-negative L_w and L_l, both leaves."""
    deltas = [-2.0 * logit / beta for logit in logits]
    winner = [max(delta, 0.0) for delta in deltas]
    loser = [max(-delta, 0.0) for delta in deltas]
    zero = [0.0] * len(logits)
    return errors_from_means(winner, loser, zero, zero)


def double_errors(pred: Tensor, ref: Tensor, target: Tensor) -> PairErrors:
    """float64 errors straight from their definition, for finite differences."""
    pairs = len(pred) // 2
    residual, ref_residual = pred.double() - target.double(), ref.double() - target.double()
    error, ref_error = (r.pow(2).flatten(1).mean(1) for r in (residual, ref_residual))
    return PairErrors(
        error[:pairs],
        error[pairs:],
        ref_error[:pairs],
        ref_error[pairs:],
        error[:pairs] - ref_error[:pairs],
        error[pairs:] - ref_error[pairs:],
        residual[:pairs],
        residual[pairs:],
        (pred.double() - ref.double())[:pairs],
    )


def check_gradient_by_finite_differences(objective: Objective) -> None:
    """The objective's gradient wrt the predictions, in float64, equals finite differences."""
    pred, ref, target = (x.double() for x in make_predictions(pairs=3, shape=(2, 2), seed=5))
    pred.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: objective(double_errors(p, ref, target)).loss, (pred,), eps=1e-6, atol=1e-7
    )


def check_gradient_signs(objective: Objective) -> None:
    """Below the target margin the loss falls with the winner's error and rises with the other."""
    errors = errors_at_logits([-1.0, 0.0, 0.2], beta=2.0)
    winner, loser = torch.autograd.grad(
        objective(errors).loss.sum(), (errors.winner, errors.loser), materialize_grads=True
    )
    assert (winner > 0).all()
    assert (loser <= 0).all()


def check_weights(objective: Objective, errors: PairErrors, *, tolerance: float) -> None:
    """Closed-form (a, b) against autograd, elementwise to `tolerance` (relative); all finite."""
    out = objective(errors)
    winner, loser = torch.autograd.grad(
        out.loss.sum(), (errors.winner, errors.loser), materialize_grads=True
    )
    a, b = objective.weights(errors)  # type: ignore[attr-defined]
    for tensor in (out.loss, out.logits, winner, loser, a, b):
        assert torch.isfinite(tensor).all()
    assert not a.requires_grad
    assert not b.requires_grad
    torch.testing.assert_close(a, winner, rtol=tolerance, atol=1e-30)
    torch.testing.assert_close(b, -loser, rtol=tolerance, atol=1e-30)
