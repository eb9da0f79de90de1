"""The LightningModule that hosts policy and reference and owns the training step.

It imports no objective, no safeguard and no backbone: all of them arrive as constructor arguments
and are known here by their protocols only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import lightning as L
import torch
from torch import Tensor

from sdpo_exp.bounds import NonNegativeInt
from sdpo_exp.protocols import (
    Backbone,
    ForwardProcess,
    GradientRule,
    Objective,
    OptimizerFactory,
    ReferenceProvider,
    Safeguard,
    Tuning,
)
from sdpo_exp.randomness import Stream, draw_noise, draw_uniform
from sdpo_exp.training.gradient_rules import rule_of
from sdpo_exp.training.optimizer_settings import put_back, settings_of
from sdpo_exp.training.precision import adapters_stay_float32, check_updates_arrive, clip_gradients
from sdpo_exp.training.records import for_both, halves, loss_parts, mean_error, step_record
from sdpo_exp.training.schedules import Schedule, make_schedule
from sdpo_exp.training.timesteps import along_schedule, limited, weights_at
from sdpo_exp.training.trained_state import check_fits, leave_out_frozen
from sdpo_exp.types import (
    Conditioning,
    LossParts,
    NoisyPair,
    PairBatch,
    PairErrors,
    PairWeights,
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
        warmup_steps: optimiser steps of linear warm-up.
        schedule: of the learning rate after that; its length is the trainer's `max_steps`.
        timesteps: training draws from the first to below the second of the scheduler's training
            steps; None: to the last. Held-out pairs are seen at all of them.
        seed: together with a pair's epoch and position it fixes that pair's timestep and noise.
        gradient_rule: how a loss becomes gradients; by default the safeguard where it is one,
            else plain backward.

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
        schedule: Schedule = "constant",
        timesteps: tuple[NonNegativeInt, int | None] = (0, None),
    ) -> None:
        super().__init__()
        self.backbone, self.objective, self.safeguard = backbone, objective, safeguard
        self.reference, self.make_optimizer = reference, optimizer
        self.gradient_rule = gradient_rule or rule_of(safeguard)
        self.warmup_steps, self.seed, self.schedule = warmup_steps, seed, schedule
        self.trained_process = limited(backbone.process, *timesteps)
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
        # What the last micro-batch's winners were predicted from, under a rule that needs parts.
        self.winner_inputs: tuple[NoisyPair, Conditioning] | None = None

    # -- the path of a pair ---------------------------------------------------------------------

    @torch.no_grad()
    def noise_batch(
        self,
        batch: PairBatch,
        uniform: Tensor,
        noise_seed: int,
        times: ForwardProcess | None = None,
    ) -> tuple[NoisyPair, Conditioning]:
        """Model inputs of B pairs; timestep and noise are shared by winner and loser.

        Args:
            batch: B pairs.
            uniform: (B,) in [0, 1), mapped to timesteps.
            noise_seed: with each pair's key it gives the pair's noise.
            times: a process whose distribution maps `uniform`; None: they are fractions of the
                schedule.
        """
        latents = self.backbone.encode_images(
            torch.cat([batch.winner, batch.loser]),
            lambda shape: for_both(draw_noise(noise_seed, batch.keys, shape, Stream.POSTERIOR)),
        )
        noise = for_both(draw_noise(noise_seed, batch.keys, latents.shape[1:])).to(latents)
        process = self.backbone.process
        uniform = uniform.to(latents.device)
        pair_t = (
            along_schedule(process, uniform)
            if times is None
            else times.sample_timesteps(uniform, latents.shape[1:])
        )
        t = pair_t.repeat(2)
        noisy = NoisyPair(
            x_t=process.add_noise(latents, noise, t),
            t=t,
            target=process.target(latents, noise, t),
            weight=weights_at(process, pair_t),
        )
        cond = self.backbone.encode_prompts(batch.prompts, batch.geometry)
        return noisy, {name: torch.cat([rows, rows]) for name, rows in cond.items()}

    def draw(self, batch: PairBatch) -> tuple[NoisyPair, Conditioning]:
        """The batch at the timesteps and noises that (seed, epoch, position) give its pairs."""
        uniform = draw_uniform(self.seed, batch.keys, Stream.TIMESTEP)
        return self.noise_batch(batch, uniform, self.seed, self.trained_process)

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
        # Winners and losers apart where their gradients are taken apart: each costs half then.
        inputs = halves(noisy, cond) if self.gradient_rule.needs_parts else [(noisy, cond)]
        # Reference first: nothing is switched while a graph is alive.
        ref = torch.cat([self.predict_reference(*part) for part in inputs])
        predictions = [self.predict_policy(*part) for part in inputs]
        errors = noisy.errors(torch.cat(predictions), ref)
        guarded = self.safeguard(errors, self.pair_weights(errors))
        output = self.objective(guarded.errors)
        loss = output.loss.mean()
        if self.gradient_rule.needs_parts:
            self.winner_inputs = inputs[0]
            self._step_loss, self._parts = loss, loss_parts(loss, predictions, errors)
        return {"loss": loss, "record": step_record(errors, guarded, output, noisy.t)}

    @torch.no_grad()
    def validation_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Any]:
        """`ValidationRecord` of held-out pairs, at timesteps and noises of their keys alone.

        The safeguard changes no value of the loss, so it has no part in this.
        """
        del batch_idx
        uniform = draw_uniform(_VALIDATION_SEED, batch.keys, Stream.TIMESTEP)
        noisy, cond = self.noise_batch(batch, uniform, _VALIDATION_SEED)
        ref = self.predict_reference(noisy, cond)
        errors = noisy.errors(self.predict_policy(noisy, cond), ref)
        record = ValidationRecord(
            loss=self.objective(errors).loss,
            winner_error=errors.winner,
            loser_error=errors.loser,
            winner_ref_error=errors.ref_winner,
            loser_ref_error=errors.ref_loser,
        )
        return {"record": record}

    @torch.no_grad()
    def winner_error(self, noisy: NoisyPair, cond: Conditioning) -> Tensor:
        """Mean error () of winners alone, such as `winner_inputs` of the last micro-batch."""
        with self.trainer.precision_plugin.forward_context():
            return mean_error(self.predict_policy(noisy, cond), noisy)

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
        """The optimiser over what is trained, and its learning rate by step."""
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        optimizer = self.make_optimizer(trained)
        check_updates_arrive(optimizer)
        # Only a rate that goes down asks for the end; without, there need be no trainer.
        steps = 0 if self.schedule == "constant" else self.trainer.max_steps
        schedule = make_schedule(optimizer, self.schedule, self.warmup_steps, steps)
        self._settings = settings_of(optimizer)
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
        for config in self.trainer.lr_scheduler_configs:
            put_back(self.trainer.optimizers[0], config.scheduler, self._settings)
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
