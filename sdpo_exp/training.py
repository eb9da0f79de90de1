"""The LightningModule that hosts policy and reference and owns the training step.

It imports no objective, no safeguard and no backbone: all of them arrive as constructor arguments
and are known here by their protocols only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import lightning as L
import torch
from diffusers.optimization import get_constant_schedule_with_warmup
from torch import Tensor

from sdpo_exp.bounds import NonNegativeInt
from sdpo_exp.gradient_rules import PlainBackward
from sdpo_exp.precision import adapters_stay_float32, check_updates_arrive, clip_gradients
from sdpo_exp.protocols import (
    Backbone,
    GradientRule,
    Objective,
    OptimizerFactory,
    ReferenceProvider,
    Safeguard,
    Tuning,
)
from sdpo_exp.randomness import Stream, draw_noise, draw_uniform
from sdpo_exp.trained_state import check_fits, leave_out_frozen
from sdpo_exp.types import (
    Conditioning,
    LossParts,
    NoisyPair,
    ObjectiveOutput,
    PairBatch,
    PairErrors,
    PairWeights,
    SafeguardOutput,
    StepRecord,
    ValidationRecord,
)

# Of the timesteps and noises that held-out pairs are seen at, the same in every run.
_VALIDATION_SEED = 0


class PreferenceModule(L.LightningModule):
    """Preference tuning of one backbone under one objective and one safeguard.

    Args:
        backbone: the model; its denoiser becomes the policy.
        objective: per-pair loss of `PairErrors`.
        safeguard: scales the loser's gradient.
        reference: takes the policy as it is now.
        tuning: decides what of the policy is trained.
        optimizer: makes the optimiser from the trainable parameters.
        warmup_steps: optimiser steps of linear warm-up, then a constant learning rate.
        seed: together with a pair's epoch and position it fixes that pair's timestep and noise.
        gradient_rule: how a loss becomes gradients; plain backward by default.

    Only the policy is a registered submodule, so a checkpoint holds the policy and nothing frozen.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        safeguard: Safeguard,
        reference: ReferenceProvider,
        tuning: Tuning,
        optimizer: OptimizerFactory,
        warmup_steps: NonNegativeInt = 0,
        seed: NonNegativeInt = 0,
        gradient_rule: GradientRule | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.objective, self.safeguard = backbone, objective, safeguard
        self.reference, self.make_optimizer = reference, optimizer
        self.gradient_rule: GradientRule = gradient_rule or PlainBackward()
        self.warmup_steps, self.seed = warmup_steps, seed
        reference.attach(backbone.denoiser)
        tuning.apply(backbone.denoiser)
        for network in (backbone.denoiser, *reference.networks()):
            tuning.prepare(network)
        self.policy = backbone.denoiser
        self.strict_loading = False  # `on_load_checkpoint` is strict about what is trained
        self._row: dict[str, float] = {}
        self._reported: Mapping[str, float] = {}
        self._logged_step = self._reported_step = -1
        self._step_loss: Tensor | None = None
        self._parts: LossParts | None = None

    # -- the path of a pair ---------------------------------------------------------------------

    @torch.no_grad()
    def noise_batch(
        self, batch: PairBatch, uniform: Tensor, noise_seed: int
    ) -> tuple[NoisyPair, Conditioning]:
        """Model inputs of B pairs; timestep and noise are shared by winner and loser.

        Args:
            batch: B pairs.
            uniform: (B,) in [0, 1), mapped to timesteps by the forward process.
            noise_seed: with each pair's key it gives the pair's noise.
        """
        latents = self.backbone.encode_images(
            torch.cat([batch.winner, batch.loser]),
            lambda shape: _shared(draw_noise(noise_seed, batch.keys, shape, Stream.POSTERIOR)),
        )
        noise = _shared(draw_noise(noise_seed, batch.keys, latents.shape[1:])).to(latents)
        process = self.backbone.process
        t = process.sample_timesteps(uniform.to(latents.device)).repeat(2)
        noisy = NoisyPair(
            x_t=process.add_noise(latents, noise, t), t=t, target=process.target(latents, noise, t)
        )
        cond = self.backbone.encode_prompts(batch.prompts, batch.geometry)
        return noisy, {name: torch.cat([rows, rows]) for name, rows in cond.items()}

    def draw(self, batch: PairBatch) -> tuple[NoisyPair, Conditioning]:
        """The batch at the timesteps and noises that (seed, epoch, position) give its pairs."""
        uniform = draw_uniform(self.seed, batch.keys, Stream.TIMESTEP)
        return self.noise_batch(batch, uniform, self.seed)

    def predict_policy(self, noisy: NoisyPair, cond: Conditioning) -> Tensor:
        """Policy prediction (2B, C, h, w)."""
        return self.backbone.denoise(self.policy, noisy.x_t, noisy.t, cond)

    @torch.no_grad()
    def predict_reference(self, noisy: NoisyPair, cond: Conditioning) -> Tensor:
        """Reference prediction (2B, C, h, w), without gradient, under the policy's autocast."""
        with self.reference.network(self.policy) as network:
            return self.backbone.denoise(network, noisy.x_t, noisy.t, cond)

    def training_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Any]:
        """Mean loss of the micro-batch and its `StepRecord`."""
        del batch_idx
        noisy, cond = self.draw(batch)
        # Reference first: nothing is switched while a graph is alive.
        ref = self.predict_reference(noisy, cond)
        errors = PairErrors.from_predictions(self.predict_policy(noisy, cond), ref, noisy.target)
        weights = self.pair_weights(errors)
        guarded = self.safeguard(errors, weights)
        output = self.objective(guarded.errors)
        loss = output.loss.mean()
        if self.gradient_rule.needs_parts:
            self._step_loss, self._parts = loss, _loss_parts(errors, weights)
        return {"loss": loss, "record": _record(errors, guarded, output, noisy.t)}

    @torch.no_grad()
    def validation_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Any]:
        """`ValidationRecord` of held-out pairs, at timesteps and noises of their keys alone.

        The safeguard changes no value of the loss, so it has no part in this.
        """
        del batch_idx
        uniform = draw_uniform(_VALIDATION_SEED, batch.keys, Stream.TIMESTEP)
        noisy, cond = self.noise_batch(batch, uniform, _VALIDATION_SEED)
        ref = self.predict_reference(noisy, cond)
        errors = PairErrors.from_predictions(self.predict_policy(noisy, cond), ref, noisy.target)
        record = ValidationRecord(
            loss=self.objective(errors).loss,
            winner_error=errors.winner,
            loser_error=errors.loser,
            winner_ref_error=errors.ref_winner,
            loser_ref_error=errors.ref_loser,
        )
        return {"record": record}

    def pair_weights(self, errors: PairErrors) -> PairWeights | None:
        """The objective's closed-form (a, b), or None where it has none."""
        closed_form = getattr(self.objective, "weights", None)
        return closed_form(errors) if closed_form is not None else None

    # -- gradients and optimiser ----------------------------------------------------------------

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Hand the (already scaled) loss to the gradient rule."""
        del args, kwargs
        optimizer = self.trainer.optimizers[0]
        if self._step_loss is None or self._parts is None:
            self.gradient_rule.backward(loss, self, optimizer)
            return
        # Accumulation and loss scaling multiply the loss before it comes here; the parts follow.
        (scale,) = torch.autograd.grad(loss, self._step_loss, retain_graph=True)
        parts = LossParts(*(scale * part for part in self._parts))
        self._step_loss = self._parts = None
        self.gradient_rule.backward(parts, self, optimizer)

    def configure_optimizers(self) -> Any:
        """The optimiser over what is trained; warm-up, then constant."""
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = self.make_optimizer(trained)
        check_updates_arrive(optimizer)
        schedule = get_constant_schedule_with_warmup(optimizer, self.warmup_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, fused optimisers under bf16 autocast included."""
        plugin = self.trainer.precision_plugin
        clip_gradients(plugin, optimizer, gradient_clip_val, gradient_clip_algorithm)

    # -- life cycle and logging -----------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Move what is not registered."""
        self.backbone.to(self.device)
        self.reference.to(self.device)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Cast or move; float32 adapters are only moved."""
        with adapters_stay_float32(self.policy):
            return super().to(*args, **kwargs)

    def report(self, metrics: Mapping[str, float]) -> None:
        """Add to the row of metrics that is logged at the end of this optimiser step."""
        self._row.update(metrics)
        self._reported = {**self.reported(), **metrics}
        self._reported_step = self.trainer.global_step

    def reported(self) -> Mapping[str, float]:
        """What was reported at the current optimiser step so far, logged already or not."""
        return self._reported if self._reported_step == self.trainer.global_step else {}

    def on_train_start(self) -> None:
        """Log what callbacks reported before the first step."""
        self._flush()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """One row per optimiser step; it runs after the callbacks' hooks."""
        del outputs, batch, batch_idx
        if self.trainer.global_step != self._logged_step:
            self._flush()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Log the step's row first: a run killed right after a checkpoint has all rows up to it."""
        self._flush()
        leave_out_frozen(checkpoint, self, self.policy)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model or tuning, in words."""
        check_fits(checkpoint, self, self.policy)

    def _flush(self) -> None:
        self._logged_step = self.trainer.global_step
        row, self._row = self._row, {}
        if row:
            for logger in self.trainer.loggers:
                logger.log_metrics(row, step=self._logged_step)


def _shared(per_pair: Tensor) -> Tensor:
    """(B, ...) -> (2B, ...): the same for winner and loser."""
    return torch.cat([per_pair, per_pair])


def _loss_parts(errors: PairErrors, weights: PairWeights | None) -> LossParts:
    if weights is None:
        raise ValueError("this gradient rule needs an objective with closed-form weights(errors)")
    winner = (weights.winner * errors.winner).mean()
    return LossParts(winner=winner, loser=-(weights.loser * errors.loser).mean())


def _record(
    errors: PairErrors, guarded: SafeguardOutput, output: ObjectiveOutput, t: Tensor
) -> StepRecord:
    loss, lambda_safe = output.loss.detach(), guarded.lambda_safe
    winner, loser = errors.winner.detach(), errors.loser.detach()
    finite = torch.isfinite(torch.stack([loss, winner, loser, lambda_safe])).all()
    return StepRecord(
        loss=loss,
        logits=output.logits.detach(),
        winner_error=winner,
        loser_error=loser,
        winner_ref_error=errors.ref_winner,
        loser_ref_error=errors.ref_loser,
        lambda_safe=lambda_safe,
        lambda_would_be=guarded.lambda_would_be,
        cosine=errors.cosine,
        timestep=t[: len(t) // 2],
        finite=finite,
    )
