"""The audit of the promise: is the error of a step's own winners above what it was before it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.callbacks.steps import StepCallback, undisturbed
from sdpo_exp.protocols import ForwardProcess
from sdpo_exp.training import PreferenceModule
from sdpo_exp.training.records import halves
from sdpo_exp.training.timesteps import along_schedule
from sdpo_exp.types import Conditioning, NoisyPair, PairBatch, StepRecord


class PromiseAudit(StepCallback):
    """Recomputes the errors of an optimiser step's pairs before and after it, as `audit/*`.

    Pairs, timesteps and noises are those of the step, over its whole accumulation window and all
    ranks; both times the policy is in eval mode and sees the same batches, so the difference is
    the step's alone. Beside it stands the change that the step should make to first order: the
    gradient of the pairs' mean error at the parameters before, times what the step added to them.

    Training goes on as if nothing had happened. The share of audited steps so far at which the mean
    winner error rose (`audit/step_rose_so_far`) is in the checkpoints.

    Args:
        every_n_steps: optimiser steps from one that is audited to the next.
        bins: equal parts of the noise schedule, each with numbers of its own where it has pairs.
    """

    def __init__(self, every_n_steps: PositiveInt = 10, bins: PositiveInt = 4) -> None:
        super().__init__(every_n_steps)
        self.bins = bins
        self._window: list[tuple[NoisyPair, Conditioning]] = []
        self._before: list[Tensor] = []
        self._audited = self._rose = 0

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Begin an empty window."""
        del trainer, module
        self._window, self._before = [], []

    def on_micro_batch(
        self, trainer: L.Trainer, module: PreferenceModule, record: StepRecord, batch: PairBatch
    ) -> None:
        """Draw the pairs of a window to be audited again, as they were trained on.

        Latents are kept and not the batch, whose pixels are the larger by far.
        """
        del record
        if self._coming:
            with undisturbed(module.policy), trainer.precision_plugin.forward_context():
                self._window.append(module.draw(batch))

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        """Copy what is trained; once, for an optimiser may ask for gradients again."""
        del trainer, optimizer
        if self._coming and not self._before:
            self._before = [p.detach().clone() for p in _trained(pl_module)]

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Audit the steps that are due."""
        window, self._window = self._window, []
        before, self._before = self._before, []
        if not self.due(trainer):
            return
        with undisturbed(module.policy):
            table = _gathered(module, _audit(trainer, module, window, before, self.bins))
        found = _metrics(table.double().cpu(), self.bins)
        self._audited += 1
        self._rose += int(found["audit/step_rose"])
        module.report({**found, "audit/step_rose_so_far": self._rose / self._audited})

    @property
    def _coming(self) -> bool:
        """Whether the optimiser step that is on its way is one to audit."""
        return (self._step + 1) % self.every_n_steps == 0

    def state_dict(self) -> dict[str, Any]:
        """Audited steps, and those at which the winners' mean error rose."""
        return {"audited": self._audited, "rose": self._rose}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on."""
        self._audited, self._rose = state_dict["audited"], state_dict["rose"]


def schedule_bin(process: ForwardProcess, t: Tensor, bins: int) -> Tensor:
    """Which of `bins` equal parts of the schedule timesteps t (N,) lie in, from 0; (N,).

    The process says where along its schedule the parts begin, so steps of a table and times of a
    flow are all the same to this.
    """
    edges = along_schedule(process, torch.arange(1, bins, device=t.device) / bins)
    return torch.bucketize(t.float(), edges.float(), right=True)


def _audit(
    trainer: L.Trainer,
    module: PreferenceModule,
    window: Sequence[tuple[NoisyPair, Conditioning]],
    before: list[Tensor],
    bins: int,
) -> Tensor:
    """(7, N) of this rank's pairs.

    Winner and loser error before, the same after, both predicted changes (of the pair's
    micro-batch), and the bin of its timestep.
    """
    tables = []
    after = [_errors(trainer, module, *pairs) for pairs in window]
    with _exchanged(_trained(module), before):
        for (noisy, cond), errors in zip(window, after, strict=True):
            first = _errors(trainer, module, noisy, cond)
            slopes = [
                _predicted_change(trainer, module, *half, before) for half in halves(noisy, cond)
            ]
            t = noisy.t[: len(noisy.t) // 2]
            predicted = torch.stack(slopes)[:, None].expand(-1, len(t))
            place = schedule_bin(module.backbone.process, t, bins)[None]
            tables.append(torch.cat([first, errors, predicted, place]))
    return torch.cat(tables, dim=1)


def _sums(
    trainer: L.Trainer, module: PreferenceModule, noisy: NoisyPair, cond: Conditioning
) -> Tensor:
    """(N,) float32 sums of squared residuals over elements, under the policy as it is."""
    with trainer.precision_plugin.forward_context():
        pred = module.predict_policy(noisy, cond)
    return (pred.float() - noisy.target.float()).square().flatten(1).sum(1)


def _weighed(sums: Tensor, weight: Tensor | None) -> Tensor:
    """(..., B) times the pairs' w (B,)."""
    return sums if weight is None else weight.float() * sums


@torch.no_grad()
def _errors(
    trainer: L.Trainer, module: PreferenceModule, noisy: NoisyPair, cond: Conditioning
) -> Tensor:
    """(2, B): winner and loser errors."""
    sums = _sums(trainer, module, noisy, cond).view(2, -1)
    return _weighed(sums, noisy.weight) / noisy.target[0].numel()


def _predicted_change(
    trainer: L.Trainer,
    module: PreferenceModule,
    half: NoisyPair,
    cond: Conditioning,
    after: Sequence[Tensor],
) -> Tensor:
    """() <gradient of the half's mean error at the parameters as they are, after - parameters>.

    `.grad` is left alone, and so are the hooks that gather it over ranks. Winners and losers come
    one after the other and not by two passes back through one graph, which a compiled network
    would refuse.
    """
    total = _weighed(_sums(trainer, module, half, cond), half.weight).mean()
    # Sums over elements, divided in the end: half precision loses the small gradients of means.
    parameters = _trained(module)
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    parts = [
        (gradient.float() * (new.float() - old.detach().float())).sum()
        for gradient, new, old in zip(gradients, after, parameters, strict=True)
        if gradient is not None
    ]
    return torch.stack(parts).sum() / half.target[0].numel()


@contextmanager
def _exchanged(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """`values` in the parameters and what was there in `values`; the other way round afterwards."""
    _exchange(parameters, values)
    try:
        yield
    finally:
        _exchange(parameters, values)


@torch.no_grad()
def _exchange(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        held = parameter.detach().clone()
        parameter.copy_(value)
        value.copy_(held)


def _gathered(module: L.LightningModule, table: Tensor) -> Tensor:
    """(7, N) over all ranks, in one collective; every rank has as many pairs.

    A predicted change over ranks is the mean of theirs, because the parameters move alike.
    """
    if module.trainer.world_size == 1:
        return table
    return torch.as_tensor(module.all_gather(table)).transpose(0, 1).flatten(1)


def _metrics(table: Tensor, bins: int) -> dict[str, float]:
    winner, loser = table[2] - table[0], table[3] - table[1]
    found = {
        "audit/winner_rose": _share_risen(winner),
        "audit/step_rose": float(winner.mean() > 0),
        "audit/winner_change": float(winner.mean()),
        "audit/loser_change": float(loser.mean()),
        "audit/predicted_winner_change": float(table[4].mean()),
        "audit/predicted_loser_change": float(table[5].mean()),
        "audit/winner_rise": float(winner.clamp_min(0).mean()),
        "audit/pairs": float(len(winner)),
    }
    for place in range(bins):
        if len(own := winner[table[6] == place]):
            found |= _bin_metrics(f"audit/t{place / bins:.3g}-{(place + 1) / bins:.3g}", own)
    return found


def _bin_metrics(prefix: str, winner: Tensor) -> Mapping[str, float]:
    return {
        f"{prefix}/winner_rose": _share_risen(winner),
        f"{prefix}/winner_change": float(winner.mean()),
    }


def _share_risen(change: Tensor) -> float:
    return float((change > 0).double().mean())


def _trained(module: L.LightningModule) -> list[nn.Parameter]:
    assert isinstance(module, PreferenceModule)
    return [p for p in module.policy.parameters() if p.requires_grad]
