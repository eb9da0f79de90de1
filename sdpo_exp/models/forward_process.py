"""The variance-preserving forward process, with epsilon and v prediction.

Arithmetic is float32 whatever the latents' dtype; results come back in the latents' dtype, so
that only the model's input is ever rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]


def per_row(values: Tensor, like: Tensor) -> Tensor:
    """(N,) as (N, 1, ...), to go with `like` (N, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def last_step(low: int, high: int | None, steps: int) -> int:
    """`high`, or all steps; what does not lie in 0..steps is refused."""
    end = steps if high is None else high
    if not 0 <= low < end <= steps:
        raise ValueError(f"the model has {steps} training steps, 0 to {steps - 1}")
    return end


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

    def sample_timesteps(self, uniform: Tensor, shape: Sequence[int] = ()) -> Tensor:
        """Integer timesteps (B,) in 0..T-1, uniform over the trained ones, from draws in [0, 1)."""
        del shape
        # Move the table once; afterwards indexing stays on the device and never synchronises.
        if self.timesteps.device != uniform.device:
            self.timesteps = self.timesteps.to(uniform.device)
        count = len(self.timesteps)
        return self.timesteps[(uniform * count).long().clamp_max(count - 1)]

    def within(self, low: int, high: int | None) -> VPProcess:
        """The same process, trained on the timesteps from `low` to below `high` only.

        Raises:
            ValueError: the table is shorter, or none of the trained timesteps is among them.
        """
        end = last_step(low, high, self.num_timesteps)
        kept = [t for t in self.timesteps.tolist() if low <= t < end]
        if not kept:
            raise ValueError(f"the model is trained on none of these: {self.timesteps.tolist()}")
        return VPProcess(self.alphas_cumprod, self.prediction_type, kept)

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
        alpha = per_row(self.alphas_cumprod[t], like)
        return alpha.sqrt(), (1 - alpha).sqrt()
