"""Forward processes: variance-preserving (epsilon and v prediction) and rectified flow.

Arithmetic is float32 whatever the latents' dtype; results come back in the latents' dtype, so
that only the model's input is ever rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


class VPProcess:
    """x_t = a_t x + s_t n with a_t^2 + s_t^2 = 1 on a table of discrete timesteps (DDPM).

    Args:
        alphas_cumprod: (T,) the scheduler's cumulative products.
        prediction_type: `epsilon` (target n) or `v_prediction` (target a_t n - s_t x).
        timesteps: train on these only, as distilled models are (SDXL-Turbo: 249, 499, 749, 999);
            None: on the whole table.

    Raises:
        ValueError: an unknown prediction type, or a timestep outside the table.
    """

    def __init__(
        self,
        alphas_cumprod: Tensor,
        prediction_type: PredictionType,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        if prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"prediction_type must be epsilon or v_prediction, got {prediction_type!r}"
            )
        self.alphas_cumprod = alphas_cumprod.float()
        self.prediction_type = prediction_type
        trained = range(len(alphas_cumprod)) if timesteps is None else timesteps
        if not trained or not 0 <= min(trained) <= max(trained) < len(alphas_cumprod):
            raise ValueError(
                f"timesteps must lie in 0..{len(alphas_cumprod) - 1}, got {list(trained)}"
            )
        self.timesteps = torch.tensor(trained)

    @property
    def num_timesteps(self) -> int:
        """T, the length of the table."""
        return len(self.alphas_cumprod)

    def sample_timesteps(self, uniform: Tensor) -> Tensor:
        """Integer timesteps (B,) in 0..T-1, uniform over the trained ones, from draws in [0, 1)."""
        # Move the table once; afterwards indexing stays on the device and never synchronises.
        if self.timesteps.device != uniform.device:
            self.timesteps = self.timesteps.to(uniform.device)
        count = len(self.timesteps)
        return self.timesteps[(uniform * count).long().clamp_max(count - 1)]

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """a_t x + s_t n, shape and dtype of `latents`."""
        signal, sigma = self._coefficients(t, latents)
        return (signal * latents.float() + sigma * noise.float()).to(latents.dtype)

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """float32 target in the prediction space."""
        if self.prediction_type == "epsilon":
            return noise.float()
        signal, sigma = self._coefficients(t, latents)
        return signal * noise.float() - sigma * latents.float()

    def _coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        if self.alphas_cumprod.device != t.device:
            self.alphas_cumprod = self.alphas_cumprod.to(t.device)
        alpha = _per_row(self.alphas_cumprod[t], like)
        return alpha.sqrt(), (1 - alpha).sqrt()


class FlowProcess:
    """x_t = (1 - t) x + t n with t in (0, 1), target n - x (rectified flow)."""

    def sample_timesteps(self, uniform: Tensor) -> Tensor:
        """Continuous times (B,): the draws themselves, kept away from the two ends."""
        return uniform.float().clamp(1e-5, 1 - 1e-5)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """(1 - t) x + t n, shape and dtype of `latents`."""
        time = _per_row(t.float(), latents)
        return torch.lerp(latents.float(), noise.float(), time).to(latents.dtype)

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """float32 velocity n - x; it differs between winner and loser."""
        del t
        return noise.float() - latents.float()
