"""The winner-preserving safeguard (Diffusion-SDPO, arXiv 2511.03317), in closed form.

Forward values never change: the loser's error enters the objective as
`sg(L_l) + lambda * (L_l - sg(L_l))`, so only its gradient is scaled. From raw residuals r,

    lambda = clip((1 - mu) * <r_w, r_w> / <r_w, r_l>, 0, 1)   if <r_w, r_l> > 0,   else 1.

The factor 2/N of the true output gradients cancels, so no absolute epsilon is needed. Edge cases
kept on purpose: r_w = 0 gives 1; mu = 1 gives 0 for aligned residuals and 1 otherwise; equal
residuals give 1 - mu. To first order in output space the winner's error then falls at no less
than mu times its natural rate, for the pairs that share one lambda taken together.

Works on any `PairErrors`, in anybody's loop; nothing here reads a value back to the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sdpo_exp.bounds import NonNegativeFloat, PositiveFloat, UnitInterval
from sdpo_exp.types import PairErrors, PairWeights, SafeguardOutput

Scope = Literal["microbatch", "pair", "global"]

# The public implementation's constant, on inner products of gradients of the batch mean.
_PUBLIC_EPSILON = 1e-9


def preserve_winner(
    errors: PairErrors,
    mu: float,
    scope: Scope = "microbatch",
    weights: PairWeights | tuple[Tensor, Tensor] | None = None,
    official_compat: bool = False,
    process_group: Any = None,
) -> tuple[PairErrors, Tensor]:
    """Scale the loser's gradient so that the winner's error does not rise to first order.

    Args:
        errors: B pairs with their residuals.
        mu: 0 forbids first-order growth of the winner's error; 1 removes the loser wherever the
            two gradients agree.
        scope: which pairs share one lambda: `microbatch` (as published; depends on the batch
            layout), `pair` (independent of it), `global` (sums all-reduced over the ranks).
        weights: detached (a, b), each (B,), with which the objective weighs the pairs. The rule
            then uses sum a |r_w|^2 over sum b <r_w, r_l>, a clipped at 0, which is exact for the
            real update; unweighted it is exact only for equal weights.
        official_compat: the public implementation's arithmetic, with its +1e-9 on sums scaled by
            4/N^2; microbatch scope and no weights only.
        process_group: ranks of the `global` scope; None is the default group.

    Returns:
        The guarded errors and lambda (B,) float32, detached.

    Raises:
        ValueError: mu outside [0, 1], an unknown scope, weights of another shape, or
            official_compat with another scope or with weights.
    """
    _check(errors, mu, scope, weights, official_compat)
    winner, inner = _inner_products(errors, weights)
    if official_compat:
        winner, inner = winner.sum(), inner.sum()
        ratio = _public_ratio(winner, inner, errors.winner_residual.numel(), mu)
    else:
        winner, inner = _pool(winner, inner, scope, process_group)
        # The divisor of rejected entries is replaced, so that no inf or nan is ever formed.
        ratio = (1.0 - mu) * winner / torch.where(inner > 0, inner, torch.ones_like(inner))
    one = torch.ones_like(ratio)
    lambda_safe = torch.where(inner > 0, ratio.clamp(0.0, 1.0), one)
    lambda_safe = lambda_safe.expand(errors.winner.shape).contiguous()
    return scale_loser_gradient(errors, lambda_safe), lambda_safe


def project_loser(
    errors: PairErrors, mu: float, lambda_min: float = 0.0, lambda_max: float = 1.0
) -> tuple[PairErrors, Tensor]:
    """Scale the loser's gradient by mu times its projection of the winner's (arXiv 2511.22982, 3).

    Per pair lambda = clip(mu <g_w, g_l> / <g_l, g_l>, lambda_min, lambda_max): mu cos^2(g_w, g_l)
    times the bound of `preserve_winner` at its mu = 0, so for mu <= 1 and lambda_min = 0 the
    winner's error does not rise to first order. Mind that a larger mu means *more* of the loser
    here, and that a loser which does no harm, <g_w, g_l> <= 0, is left at lambda_min.

    Args:
        errors: B pairs with their residuals.
        mu: > 0.
        lambda_min, lambda_max: 0 <= lambda_min <= lambda_max.

    Returns:
        The guarded errors and lambda (B,) float32, detached. A loser without gradient gets
        lambda_min.

    Raises:
        ValueError: one of the numbers is out of its range.
    """
    if not 0 < mu < math.inf:
        raise ValueError(f"mu must be a finite number > 0, got {mu}")
    _check_bounds(lambda_min, lambda_max)
    loser = errors.loser_residual.detach()
    inner = (errors.winner_residual.detach() * loser).flatten(1).sum(1)
    square = loser.square().flatten(1).sum(1)
    ratio = mu * inner / torch.where(square > 0, square, torch.ones_like(square))
    lambda_safe = ratio.clamp(lambda_min, lambda_max)
    return scale_loser_gradient(errors, lambda_safe), lambda_safe


def no_safeguard(errors: PairErrors) -> tuple[PairErrors, Tensor]:
    """The errors as they are, and lambda = 1 (B,)."""
    return errors, torch.ones_like(errors.winner)


def constant_weight(errors: PairErrors, weight: float) -> tuple[PairErrors, Tensor]:
    """The control: one constant `weight` >= 0 on every loser's gradient, and it as (B,)."""
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight must be a finite number >= 0, got {weight}")
    lambda_safe = torch.full_like(errors.winner, weight)
    return scale_loser_gradient(errors, lambda_safe), lambda_safe


def scale_loser_gradient(errors: PairErrors, lambda_safe: Tensor) -> PairErrors:
    """`errors` with L_l of unchanged value and gradient scaled by lambda_safe (B,)."""
    return errors.with_loser_gradient(lambda_safe)


def _inner_products(
    errors: PairErrors, weights: PairWeights | tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """a <g_w, g_w> and b <g_w, g_l> per pair, (B,) each, of the errors' gradients g up to 2/N.

    Under a weight w of the errors g is w times prediction minus target: sqrt(w) is in the
    residuals, the other half comes here. A pair's own lambda does not depend on it, pooled sums do.
    """
    residual = errors.winner_residual.detach()
    winner = residual.square().flatten(1).sum(1)
    inner = (residual * errors.loser_residual.detach()).flatten(1).sum(1)
    if errors.weight is not None:
        winner, inner = errors.weight * winner, errors.weight * inner
    if weights is None:
        return winner, inner
    a, b = weights
    return a.detach().float().clamp_min(0.0) * winner, b.detach().float() * inner


def _pool(winner: Tensor, inner: Tensor, scope: Scope, process_group: Any) -> tuple[Tensor, Tensor]:
    if scope == "pair":
        return winner, inner
    sums = torch.stack([winner.sum(), inner.sum()])
    distributed = torch.distributed
    if scope == "global" and distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(sums, group=process_group)
    return sums[0], sums[1]


def _public_ratio(winner: Tensor, inner: Tensor, elements: int, mu: float) -> Tensor:
    scale = 4.0 / elements**2
    return (1.0 - mu) * (scale * winner) / (scale * inner + _PUBLIC_EPSILON)


def _check(
    errors: PairErrors,
    mu: float,
    scope: str,
    weights: PairWeights | tuple[Tensor, Tensor] | None,
    official_compat: bool,
) -> None:
    if not 0.0 <= mu <= 1.0:
        raise ValueError(f"mu must lie in [0, 1], got {mu}")
    if scope not in get_args(Scope):
        raise ValueError(f"scope must be one of {', '.join(get_args(Scope))}, got {scope!r}")
    if official_compat and (scope != "microbatch" or weights is not None):
        raise ValueError("official_compat means the microbatch scope without weights")
    shapes = [tuple(w.shape) for w in weights or ()]
    if any(shape != tuple(errors.winner.shape) for shape in shapes):
        raise ValueError(f"weights must be two {tuple(errors.winner.shape)} tensors, got {shapes}")


def _check_bounds(lambda_min: float, lambda_max: float) -> None:
    if not 0 <= lambda_min <= lambda_max < math.inf:
        raise ValueError(
            f"lambda_min and lambda_max must be 0 <= lambda_min <= lambda_max, got {lambda_min} "
            f"and {lambda_max}"
        )


@dataclass(frozen=True)
class PreserveWinner:
    """`preserve_winner` as a configurable safeguard. `weighted` uses the objective's (a, b)."""

    mu: UnitInterval
    scope: Scope = "microbatch"
    weighted: bool = False
    official_compat: bool = False

    def __call__(self, errors: PairErrors, weights: PairWeights | None) -> SafeguardOutput:
        """Guarded errors and lambda; `lambda_would_be` is lambda itself."""
        if self.weighted and weights is None:
            raise ValueError("weighted needs an objective with closed-form weights(errors)")
        guarded, lambda_safe = preserve_winner(
            errors,
            self.mu,
            self.scope,
            weights if self.weighted else None,
            self.official_compat,
        )
        return SafeguardOutput(guarded, lambda_safe, lambda_safe)


@dataclass(frozen=True)
class ProjectLoser:
    """`project_loser` as a configurable safeguard."""

    mu: PositiveFloat = 1.0
    lambda_min: NonNegativeFloat = 0.0
    lambda_max: NonNegativeFloat = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError where the bounds are the wrong way round."""
        _check_bounds(self.lambda_min, self.lambda_max)

    def __call__(self, errors: PairErrors, weights: PairWeights | None) -> SafeguardOutput:
        """Guarded errors and lambda; `lambda_would_be` is lambda itself."""
        del weights
        guarded, lambda_safe = project_loser(errors, self.mu, self.lambda_min, self.lambda_max)
        return SafeguardOutput(guarded, lambda_safe, lambda_safe)


@dataclass(frozen=True)
class NoSafeguard:
    """lambda = 1. `would_be_mu` only feeds the log: the lambda that mu would have given."""

    would_be_mu: UnitInterval

    def __call__(self, errors: PairErrors, weights: PairWeights | None) -> SafeguardOutput:
        """The errors as they are."""
        del weights
        unchanged, lambda_safe = no_safeguard(errors)
        return SafeguardOutput(unchanged, lambda_safe, _would_be(errors, self.would_be_mu))


@dataclass(frozen=True)
class ConstantWeight:
    """A constant lambda, the control that asks whether the closed form earns its keep."""

    weight: NonNegativeFloat
    would_be_mu: UnitInterval

    def __call__(self, errors: PairErrors, weights: PairWeights | None) -> SafeguardOutput:
        """Errors with the constantly weighted loser."""
        del weights
        guarded, lambda_safe = constant_weight(errors, self.weight)
        return SafeguardOutput(guarded, lambda_safe, _would_be(errors, self.would_be_mu))


def _would_be(errors: PairErrors, mu: float) -> Tensor:
    return preserve_winner(errors, mu)[1]
