"""A training step with the structure of the public scripts, to hold ours against on one card.

The VAE samples and the text encoder runs in half precision at every step; winner and loser errors
of the reference are reduced in half precision; lambda comes from two `torch.autograd.grad` calls on
the prediction; eight numbers are read back to the host after every micro-step. The networks, the
attention kernels and the optimiser are those of the module it is given.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import Conditioning, PairBatch

# The public implementation's constant in lambda's denominator.
_EPSILON = 1e-9


class NaiveLoop:
    """Diffusion-DPO with the winner-preserving factor, one micro-step per optimiser step.

    Args:
        module: hosts policy, reference, VAE and text encoders; the VAE is cast to half precision.
        beta, mu: of loss and factor.
    """

    def __init__(self, module: PreferenceModule, beta: float = 5000.0, mu: float = 0.6) -> None:
        self.module, self.beta, self.mu = module, beta, mu
        self.backbone: Any = module.backbone
        self.dtype = torch.bfloat16
        torch.nn.Module.to(self.backbone.vae, self.dtype)  # diffusers' own warns of nothing

    def step(self, batch: PairBatch, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """One optimiser step; returns what the scripts log."""
        device = batch.winner.device.type
        with torch.autocast(device, self.dtype):
            x_t, t, target, cond = self._inputs(batch)
            pred = self.backbone.denoise(self.module.policy, x_t, t, cond)
            errors = (pred.float() - target.float()).pow(2).mean(dim=(1, 2, 3))
            with torch.no_grad(), self.module.reference.network(self.module.policy) as network:
                ref = self.backbone.denoise(network, x_t, t, cond).to(self.dtype)
                ref_errors = (ref - target.to(self.dtype)).pow(2).mean(dim=(1, 2, 3))
            loss, told = self._loss(pred, errors, ref_errors)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {name: value.detach().float().mean().item() for name, value in told.items()}

    @torch.no_grad()
    def _inputs(self, batch: PairBatch) -> tuple[Tensor, Tensor, Tensor, Conditioning]:
        pixels = torch.cat([batch.winner, batch.loser]).to(self.dtype)
        latents = self.backbone.vae.encode(pixels).latent_dist.sample()
        latents = latents * self.backbone.vae.config.scaling_factor
        pairs = len(batch.prompts)
        noise = torch.randn_like(latents[:pairs]).repeat(2, 1, 1, 1)
        process = self.backbone.process
        uniform = torch.rand(pairs, device=latents.device)
        t = process.sample_timesteps(uniform).repeat(2)
        cond = self.backbone.encode_prompts(batch.prompts, batch.geometry)
        cond = {name: torch.cat([rows, rows]) for name, rows in cond.items()}
        x_t = process.add_noise(latents.float(), noise.float(), t)
        return x_t, t, process.target(latents.float(), noise.float(), t), cond

    def _loss(
        self, pred: Tensor, errors: Tensor, ref_errors: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        winner, loser = errors.chunk(2)
        ref_winner, ref_loser = ref_errors.chunk(2)
        (of_winner,) = torch.autograd.grad(winner.mean(), pred, retain_graph=True)
        (of_loser,) = torch.autograd.grad(loser.mean(), pred, retain_graph=True)
        first, second = of_winner.chunk(2)[0], of_loser.chunk(2)[1]
        inner = (first * second).sum()
        ratio = (1 - self.mu) * first.pow(2).sum() / (inner + _EPSILON)
        factor = torch.where(inner > 0, ratio.clamp(0, 1), torch.ones_like(ratio)).detach()
        guarded = loser.detach() + factor * (loser - loser.detach())
        logits = -0.5 * self.beta * ((winner - guarded) - (ref_winner - ref_loser).float())
        loss = -F.logsigmoid(logits).mean()
        told = {
            "loss": loss,
            "raw": errors,
            "ref": ref_errors,
            "accuracy": (logits > 0).float(),
            "lambda": factor,
            "winner_drift": winner - ref_winner,
            "loser_drift": loser - ref_loser,
            "logits": logits,
        }
        return loss, told
