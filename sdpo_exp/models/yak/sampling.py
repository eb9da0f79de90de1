"""Euler's method from noise to image tokens, with the two forms of guidance of Ovis-U1.

Every branch of a guidance is a forward of its own, so each has a text of its own length and
none is padded. Scales are the released scripts' defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Tokens (B, n, c) and times (B,) -> velocity (B, n, c)."""


def sample_t2i(
    noise: Tensor,
    times: Tensor,
    prompted: Velocity,
    unprompted: Velocity,
    text_scale: float = 5.0,
    *,
    official_times: bool = False,
) -> Tensor:
    """Tokens float32 (B, n, c) of an image for a text: v = v_b + s_txt (v_c - v_b).

    Args:
        noise: (B, n, c) tokens at the time 1.
        times: (steps + 1,) from `schedule`.
        prompted: v_c, of the prompt.
        unprompted: v_b, of the request for any image.
        text_scale: s_txt.
        official_times: hand the network times as the official run in bfloat16 does: t rounded,
            then 1000 t rounded, so that above 512 it sees multiples of 4. Steps stay exact.
            Compilers that fuse may leave the second rounding out.
    """

    def guided(x: Tensor, t: Tensor) -> Tensor:
        bare, full = unprompted(x, t).float(), prompted(x, t).float()
        return bare + text_scale * (full - bare)

    return _euler(noise, times, guided, official_times)


def sample_edit(
    noise: Tensor,
    times: Tensor,
    instructed: Velocity,
    uninstructed: Velocity,
    bare: Velocity,
    image_scale: float = 1.5,
    text_scale: float = 6.0,
    *,
    official_times: bool = False,
) -> Tensor:
    """Tokens (B, n, c) of an edited image: v = v_b + s_img (v_i - v_b) + s_txt (v_c - v_i).

    Args:
        noise, times, official_times: those of `sample_t2i`.
        instructed: v_c, of the instruction and the source image.
        uninstructed: v_i, of the source image without the instruction.
        bare: v_b, of neither; it has no condition tokens.
        image_scale, text_scale: s_img and s_txt.
    """

    def guided(x: Tensor, t: Tensor) -> Tensor:
        neither, image, full = (v(x, t).float() for v in (bare, uninstructed, instructed))
        return neither + image_scale * (image - neither) + text_scale * (full - image)

    return _euler(noise, times, guided, official_times)


@torch.no_grad()
def _euler(noise: Tensor, times: Tensor, velocity: Velocity, official_times: bool) -> Tensor:
    """x + (t' - t) v over the times, in float32; the last step is like the others."""
    x = noise.float()
    # The network multiplies by 1000 in the dtype of t.
    seen = torch.bfloat16 if official_times else torch.float32
    exact = times.tolist()
    for now, following in pairwise(exact):
        t = torch.full((len(x),), now, dtype=seen, device=x.device)
        x = x + (following - now) * velocity(x, t)
    return x
