"""A fixed probe: held-out pairs under frozen timesteps and noise, so that curves compare.

The training loss of a diffusion model jumps with the timestep drawn and says little. The probe
asks the same questions at every visit and in every run, whatever the run's seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import lightning as L
import torch
from annotated_types import MinLen
from torch import Tensor

from sdpo_exp.bounds import HalfOpenUnit, NonNegativeInt, PositiveInt
from sdpo_exp.callbacks.steps import StepCallback, undisturbed, visit_progress
from sdpo_exp.callbacks.winner_loss import implicit_accuracy
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import Conditioning, NoisyPair, PairErrors


class _Question(NamedTuple):
    time: float
    noisy: NoisyPair
    cond: Conditioning
    ref: Tensor


class FixedProbe(StepCallback):
    """Winner and loser drift, margin and accuracy on held-out pairs.

    Args:
        pairs: held-out pairs to ask about.
        times: where in the noise schedule, in [0, 1); each is a bin of its own in the log.
        every_n_steps: optimiser steps between two visits; step 0 and the last are always visited.
        seed: of the frozen noise; leave it alone to compare runs.

    The policy is in eval mode meanwhile, and training goes on as if nothing had happened.
    Logs `probe/<quantity>` over all bins and `probe/t<time>/<quantity>` per bin, and standard
    errors over pairs as `probe/<quantity>_se`, with their number as `probe/pairs`.
    """

    def __init__(
        self,
        pairs: PositiveInt = 64,
        times: Annotated[Sequence[HalfOpenUnit], MinLen(1)] = (0.1, 0.3, 0.5, 0.7),
        every_n_steps: PositiveInt = 60,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(every_n_steps)
        self.pairs, self.times, self.seed = pairs, tuple(times), seed
        self._questions: list[_Question] = []

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Freeze the questions and their reference answers; visit once before training."""
        with undisturbed(module.policy):
            self._questions = self._ask(trainer, module)
        self._visit(trainer, module)

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Visit at the optimiser steps that are due, and at the last."""
        if self.due(trainer, at_end=True):
            self._visit(trainer, module)

    def _ask(self, trainer: L.Trainer, module: PreferenceModule) -> list[_Question]:
        questions = []
        with visit_progress(trainer, "probe, reference", self.pairs) as progress:
            for batch in trainer.datamodule.held_out(self.pairs):  # type: ignore[attr-defined]
                batch = module.transfer_batch_to_device(batch, module.device, 0)
                for time in self.times:
                    uniform = torch.full((len(batch.keys),), time)
                    with trainer.precision_plugin.forward_context():
                        noisy, cond = module.noise_batch(batch, uniform, self.seed)
                        ref = module.predict_reference(noisy, cond)
                    questions.append(_Question(time, noisy, cond, ref))
                progress.advance(len(batch.keys))
        return questions

    @torch.no_grad()
    def _visit(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        answers: dict[float, list[PairErrors]] = {time: [] for time in self.times}
        progress = visit_progress(trainer, "probe", self.pairs * len(self.times))
        with undisturbed(module.policy), progress:
            for question in self._questions:
                with trainer.precision_plugin.forward_context():
                    pred = module.predict_policy(question.noisy, question.cond)
                errors = question.noisy.errors(pred, question.ref)
                answers[question.time].append(errors)
                progress.advance(len(pred) // 2)
        tables = {time: _table(errors) for time, errors in answers.items()}
        metrics = _summary("probe", torch.cat(list(tables.values()), dim=1))
        metrics |= _standard_errors(torch.stack(list(tables.values())))
        metrics["probe/pairs"] = float(self.pairs)
        for time, table in tables.items():
            metrics |= _summary(f"probe/t{time:g}", table)
        module.report(metrics)


def _table(errors: list[PairErrors]) -> Tensor:
    """(4, N): winner error, loser error, winner drift, loser drift."""
    rows = [
        torch.stack([e.winner, e.loser, e.winner - e.ref_winner, e.loser - e.ref_loser])
        for e in errors
    ]
    return torch.cat(rows, dim=1)


def _summary(prefix: str, table: Tensor) -> dict[str, float]:
    winner, loser, winner_minus_ref, loser_minus_ref = table
    delta = winner_minus_ref - loser_minus_ref
    values = {
        "winner_error": winner.mean(),
        "loser_error": loser.mean(),
        "winner_minus_ref": winner_minus_ref.mean(),
        "loser_minus_ref": loser_minus_ref.mean(),
        "margin": (loser_minus_ref - winner_minus_ref).mean(),
        "implicit_accuracy": implicit_accuracy(delta),
    }
    read = torch.stack(list(values.values())).tolist()
    return {f"{prefix}/{name}": value for name, value in zip(values, read, strict=True)}


def _standard_errors(tables: Tensor) -> dict[str, float]:
    """Over pairs, of (bins, 4, N): a pair's bins share its images, so they are averaged first."""
    _, _, winner, loser = tables.double().mean(0)
    correct = 0.5 * (1 - torch.sign(tables[:, 2] - tables[:, 3])).double().mean(0)
    values = {
        "winner_minus_ref": winner,
        "loser_minus_ref": loser,
        "margin": loser - winner,
        "implicit_accuracy": correct,
    }
    pairs = len(winner)
    if pairs == 1:  # which says nothing about the spread
        return {}
    return {f"probe/{name}_se": float(value.std() / pairs**0.5) for name, value in values.items()}
