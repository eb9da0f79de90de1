"""Rectified flow with continuous times, and the distributions that a training draws them from.

Times are drawn in (0, 1) directly. Indexing a scheduler's table instead applies its static shift
without a word, and leaves a dynamic one out. Arithmetic is float32 or better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from sdpo_exp.bounds import PositiveFloat, PositiveInt
from sdpo_exp.models.forward_process import last_step, per_row

Distribution = Literal["uniform", "logit_normal"]
Shift = Literal["none", "static", "resolution"]
Weighting = Literal["one", "signal"]

_EDGE = 1e-5
# Tokens that `base_shift` and `max_shift` belong to: 256 and 1024 pixels a side of FLUX; and its.
_FEW, _MANY = 256, 4096
USUAL_SHIFTS = (0.5, 1.15)


def shifted(t: Tensor, factor: float) -> Tensor:
    """A t / (1 + (A - 1) t): times moved towards noise for A > 1; adds log A to logit(t)."""
    return factor * t / (1 + (factor - 1) * t)


def resolution_mu(tokens: int, base: float, most: float) -> float:
    """log of the shift for images of so many tokens: a line from `base` at 256 to `most` at 4096.

    Not clamped: it goes on beyond both ends, as the released models have it.
    """
    return base + (tokens - _FEW) * (most - base) / (_MANY - _FEW)


def resolution_line(few: tuple[int, float], many: tuple[int, float]) -> tuple[float, float]:
    """A line through two (tokens, mu) by what it is at 256 and at 4096 tokens."""
    slope = (many[1] - few[1]) / (many[0] - few[0])
    return few[1] + (_FEW - few[0]) * slope, few[1] + (_MANY - few[0]) * slope


class FlowProcess:
    """x_t = (1 - t) x + t n with t in (0, 1), target n - x (rectified flow).

    Args:
        distribution: of the training's times: `uniform`, or `logit_normal`, sigmoid(N(mean,
            spread^2)).
        mean, spread: of the logit-normal.
        shift: applied to what is drawn: `none`, `static` by `shift_factor`, or by `resolution`:
            exp of a line through `base_shift` at 256 tokens and `max_shift` at 4096.
        shift_factor: A of the static shift; 3 is Stable Diffusion 3's.
        base_shift, max_shift: of the shift by resolution; None leaves it to the model's own, for
            models that have one (`completed`).
        patch: latents per token in each direction, to count tokens by.
        weighting: w(t) of a pair's errors: `one`, or `signal`, (1 - t)^2, with which the velocity's
            error becomes the noise's.
        num_timesteps: of the scheduler; its step k is the time k / num_timesteps.
        interval: of the times that are trained on.

    Raises:
        ValueError: an unknown distribution, shift or weighting.
    """

    def __init__(
        self,
        distribution: Distribution = "uniform",
        mean: float = 0.0,
        spread: PositiveFloat = 1.0,
        shift: Shift = "none",
        shift_factor: PositiveFloat = 3.0,
        base_shift: float | None = 0.5,
        max_shift: float | None = 1.15,
        patch: PositiveInt = 2,
        weighting: Weighting = "one",
        num_timesteps: PositiveInt = 1000,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        _check_choice("distribution", distribution, Distribution)
        _check_choice("shift", shift, Shift)
        _check_choice("weighting", weighting, Weighting)
        self.distribution, self.mean, self.spread = distribution, mean, spread
        self.shift, self.shift_factor = shift, shift_factor
        self.base_shift, self.max_shift, self.patch = base_shift, max_shift, patch
        self.weighting, self.num_timesteps, self.interval = weighting, num_timesteps, interval

    def sample_timesteps(self, uniform: Tensor, shape: Sequence[int] = ()) -> Tensor:
        """Times (B,) float32 of draws (B,) in [0, 1), by the distribution's quantiles.

        Args:
            uniform: the draws; a greater one gives a later time.
            shape: (C, h, w) of a latent, which the shift by resolution needs.

        Raises:
            ValueError: the shift is by resolution and there is no shape.
        """
        factor = self._factor(shape)
        low, high = (self._cumulative(end, factor) for end in self.interval)
        quantiles = low + (high - low) * uniform.double()
        if self.distribution == "logit_normal":
            times = torch.sigmoid(self.mean + self.spread * torch.special.ndtri(quantiles))
        else:
            times = quantiles
        # Draws at the very ends would be no mixture of image and noise.
        first, last = self.interval
        ends = max(first, _EDGE), min(last, 1 - _EDGE)
        return shifted(times, factor).clamp(*ends).float()

    def at(self, fractions: Tensor) -> Tensor:
        """The times (B,) themselves, in the place of draws: no distribution moves them."""
        return fractions.float().clamp(_EDGE, 1 - _EDGE)

    def pair_weights(self, t: Tensor) -> Tensor | None:
        """w(t) (N,) float32 of the errors at times t (N,); None: 1."""
        return None if self.weighting == "one" else (1 - t.float()).square()

    def within(self, low: int, high: int | None) -> FlowProcess:
        """The same process, trained on times from step `low` to step `high` only.

        Raises:
            ValueError: there are fewer steps.
        """
        steps = self.num_timesteps
        end = last_step(low, high, steps)
        return FlowProcess(**{**vars(self), "interval": (low / steps, end / steps)})

    def completed(self, base_shift: float, max_shift: float) -> FlowProcess:
        """The same process, with these where its own are None."""
        own = (self.base_shift, self.max_shift)
        if None not in own:
            return self
        base, most = (
            mine if mine is not None else other
            for mine, other in zip(own, (base_shift, max_shift), strict=True)
        )
        return FlowProcess(**{**vars(self), "base_shift": base, "max_shift": most})

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """(1 - t) x + t n, shape and dtype of `latents`."""
        time = per_row(t.float(), latents)
        return torch.lerp(latents.float(), noise.float(), time).to(latents.dtype)

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """float32 velocity n - x; it differs between winner and loser."""
        del t
        return noise.float() - latents.float()

    def _factor(self, shape: Sequence[int]) -> float:
        if self.shift == "none":
            return 1.0
        if self.shift == "static":
            return self.shift_factor
        if len(shape) < 2:
            raise ValueError("a shift by resolution needs the latents' shape (C, h, w)")
        if self.base_shift is None or self.max_shift is None:
            raise ValueError("a shift by resolution needs base_shift and max_shift")
        tokens = math.prod(side // self.patch for side in shape[-2:])
        return math.exp(resolution_mu(tokens, self.base_shift, self.max_shift))

    def _cumulative(self, time: float, factor: float) -> float:
        """Share of the training's times below `time`, were there no interval."""
        if time in (0.0, 1.0):
            return time
        drawn = time / (factor - (factor - 1) * time)
        if self.distribution == "uniform":
            return drawn
        return _normal_cumulative((math.log(drawn / (1 - drawn)) - self.mean) / self.spread)


def _normal_cumulative(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))


def _check_choice(name: str, value: str, choices: object) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")
