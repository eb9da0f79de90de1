"""Rules that see the gradients of a whole accumulation window, over all ranks, before its step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import lightning as L
import torch
from torch import Tensor

from sdpo_exp.bounds import UnitInterval
from sdpo_exp.errors import UserError
from sdpo_exp.rules.flat import gradient, trained, write_gradient
from sdpo_exp.safeguard import preserve_winner
from sdpo_exp.types import LossParts, PairErrors, PairWeights, SafeguardOutput

if TYPE_CHECKING:
    from sdpo_exp.training import PreferenceModule


Clip: TypeAlias = Callable[[Tensor], Tensor]


class WindowGradients(NamedTuple):
    """Gradients (P,) of a window's means over all its pairs.

    Attributes:
        winner: G_w = sum of a grad L_w, of the loss through the winners' predictions.
        loser: G_l = sum of -b grad L_l, of the loss through the losers' predictions.
        protected: G_A, of the winners' mean error, every pair counted alike.

    The loss's own gradient is G_w + G_l; under a rule it is G_w + lambda G_l.
    """

    winner: Tensor
    loser: Tensor
    protected: Tensor

    def combined(self, share: Tensor | float) -> Tensor:
        """G_w + share G_l, (P,)."""
        return self.winner + share * self.loser


class WindowRule:
    """A safeguard that scales the losers' gradient once it is known what it does to the winners.

    A subclass says in `share` by how much. Winners and losers pass through the policy apart, so
    taking their gradients apart costs no pass more; the winners' own gradient costs half of one.
    Three vectors of the size of what is trained are held.

    Args:
        mu: 0 forbids first-order growth of the winners' error; 1 removes what of the losers harms
            them.
    """

    needs_parts = True
    vectors = 3  # of the size of what is trained, in float32, that are held

    def __init__(self, mu: UnitInterval) -> None:
        if not 0.0 <= mu <= 1.0:
            raise ValueError(f"mu must lie in [0, 1], got {mu}")
        self.mu = mu
        self._sums: WindowGradients | None = None
        self._lambdas: list[Tensor] = []
        self._seen = 0

    def __call__(self, errors: PairErrors, weights: PairWeights | None) -> SafeguardOutput:
        """The errors as they are; lambda (B,) is filled in when its window is complete.

        `lambda_would_be` is the published rule's at the same mu, for comparison.
        """
        del weights
        later = torch.ones_like(errors.winner.detach())
        self._lambdas.append(later)
        return SafeguardOutput(errors, later, preserve_winner(errors, self.mu)[1])

    def share(
        self, gradients: WindowGradients, optimizer: torch.optim.Optimizer, clip: Clip
    ) -> Tensor:
        """lambda (), on the gradients' device; `clip` is what the trainer does to gradients."""
        raise NotImplementedError

    def check(self, optimizer: torch.optim.Optimizer, trainer: L.Trainer) -> None:
        """Refuse what the rule cannot work with, before a run begins.

        Raises:
            UserError: a loss scale, or an optimiser that the rule does not know.
        """
        del optimizer
        refuse_loss_scale(trainer)

    def backward(self, loss: Tensor | LossParts, module: PreferenceModule, optimizer: Any) -> None:
        """Add a micro-batch; after the window's last, write the gradient and lambda.

        Raises:
            UserError: see `check`.
        """
        assert isinstance(loss, LossParts)
        trainer = module.trainer
        if self._seen == 0:
            self.check(optimizer, trainer)
            synchronise_here(trainer)
        new = _gradients(loss, trained(optimizer))
        self._sums = new if self._sums is None else _added(self._sums, new)
        self._seen += 1
        if self._seen == trainer.accumulate_grad_batches:
            window = WindowGradients(*map(mean_over_ranks, self._sums))
            share = self.write(window, optimizer, module)
            for later in self._lambdas:
                later.fill_(share)
            self._sums, self._lambdas, self._seen = None, [], 0

    def write(
        self,
        gradients: WindowGradients,
        optimizer: torch.optim.Optimizer,
        module: PreferenceModule,
    ) -> Tensor:
        """Make `.grad` of the window's gradients, and return lambda ()."""
        share = self.share(gradients, optimizer, clip_of(module.trainer))
        write_gradient(gradients.combined(share), trained(optimizer))
        return share


def _gradients(parts: LossParts, parameters: list[Tensor]) -> WindowGradients:
    protected = gradient(parts.protected, parameters, keep=True)
    return WindowGradients(
        winner=gradient(parts.winner, parameters),
        loser=gradient(parts.loser, parameters),
        protected=protected,
    )


def _added(one: WindowGradients, other: WindowGradients) -> WindowGradients:
    return WindowGradients(*(a.add_(b) for a, b in zip(one, other, strict=True)))


def mean_over_ranks(values: Tensor) -> Tensor:
    """The same on every rank, in place: the mean of theirs; as it is on a single device."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values


def synchronise_here(trainer: L.Trainer) -> None:
    """Keep DDP from waiting for gradients that are taken apart, which its hooks never see."""
    wrapped: Any = trainer.strategy.model
    if hasattr(wrapped, "require_backward_grad_sync"):
        wrapped.require_backward_grad_sync = False


def refuse_loss_scale(trainer: L.Trainer) -> None:
    """Raises UserError under float16, whose steps may be left out after the rule has decided."""
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        raise UserError(
            "trainer.precision=16-mixed: this safeguard takes gradients apart, which a loss scale "
            "would distort; use bf16-mixed or 32-true, or safeguard=on"
        )


def clip_of(trainer: L.Trainer) -> Clip:
    """What the trainer does to a gradient (P,) before the optimiser sees it."""
    limit = trainer.gradient_clip_val
    if not limit:
        return lambda gradient: gradient
    if trainer.gradient_clip_algorithm == "value":
        return lambda gradient: gradient.clamp(-limit, limit)
    # As in torch.nn.utils.clip_grad_norm_.
    return lambda gradient: gradient * (limit / (gradient.norm() + 1e-6)).clamp(max=1.0)
