"""Under which autocast a training's pipeline draws, where its parts have dtypes of their own."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def half_of(pipeline: Any) -> torch.dtype | None:
    """The half precision of a part, the VAE's aside; None: all others are float32."""
    parts = [p for p in pipeline.components.values() if isinstance(p, torch.nn.Module)]
    found: set[Any] = {p.dtype for p in parts if p is not getattr(pipeline, "vae", None)}
    return next(iter(found - {torch.float32}), None)


def drawing_autocast(pipeline: Any) -> AbstractContextManager[Any]:
    """In a part's half precision; on CUDA in bfloat16 where all are float32, else none.

    Text encoders may be of half precision to save memory, under a float32 denoiser.
    """
    half, kind = half_of(pipeline), torch.device(pipeline.device).type
    if half is None and kind != "cuda":
        return nullcontext()
    return torch.autocast(kind, dtype=half or torch.bfloat16)
