"""Weights and gradients in half precision: what is lost there, and what must not be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor, nn

from sdpo_exp.errors import UserError

_HALF = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}
_MOST_THAT_MAY_STAND_STILL = 0.5


def share_that_stands_still(weights: Iterable[Tensor], lr: float) -> float:
    """Share of elements that an update of size `lr`, up or down, leaves as they are.

    That is the size of an AdamW update, whatever the gradient's. A number w of p bits after the
    leading one has its neighbours 2^-p |w| or half as far away, and what is less than half the
    way is rounded back to w; p is 7 in bfloat16 and 10 in float16.

    Args:
        weights: floating-point tensors of any dtypes; none give 0.
        lr: learning rate.
    """
    still = total = 0
    with torch.no_grad():
        for weight in weights:
            still += int(((weight + lr == weight) & (weight - lr == weight)).sum())
            total += weight.numel()
    return still / total if total else 0.0


def check_updates_arrive(optimizer: torch.optim.Optimizer) -> None:
    """Refuse to train weights in half precision that the learning rate is too small to move.

    Args:
        optimizer: as built, before any warm-up lowers its learning rate.

    Raises:
        UserError: an update rounds to nothing for more than half of the elements of some group.
    """
    for group in optimizer.param_groups:
        half = [p for p in group["params"] if p.dtype in _HALF]
        if not half or group["lr"] is None:
            continue
        lr = float(group["lr"])
        share = share_that_stands_still(half, lr)
        if share > _MOST_THAT_MAY_STAND_STILL:
            raise UserError(_message(half[0].dtype, lr, share))


def _message(dtype: torch.dtype, lr: float, share: float) -> str:
    name = str(dtype).removeprefix("torch.")
    return (
        f"trainer.precision: the trained weights are {name}, where an update of lr={lr:g} rounds "
        f"to nothing for {share:.0%} of them. Use trainer.precision={_HALF[dtype]} (float32 "
        f"weights, {name} arithmetic), tuning=lora (float32 adapters), or a larger lr."
    )


@contextmanager
def adapters_stay_float32(policy: nn.Module) -> Iterator[None]:
    """Whatever is cast inside the context, `policy`'s trained adapters keep their float32 values.

    `trainer.precision=bf16-true` casts a whole module; adapters are too small for that to save
    anything, and a resumed run would lose the bits that its checkpoint has.
    """
    adapted = hasattr(policy, "peft_config")
    trained = [p for p in policy.parameters() if adapted and p.requires_grad]
    kept = [(p, p.data) for p in trained if p.dtype == torch.float32]
    yield
    for parameter, values in kept:
        if parameter.dtype != torch.float32:
            parameter.data = values.to(parameter.device)


def clip_gradients(
    precision: Precision,
    optimizer: torch.optim.Optimizer,
    value: float | None,
    algorithm: str | None,
) -> None:
    """Clip as Lightning does, fused optimisers under bf16 autocast included.

    Lightning refuses those under any autocast, because a fused step may have to undo a loss scale
    first; in bf16 there is none.

    Args:
        precision: the trainer's plugin.
        optimizer: whose gradients to clip, in place.
        value: the limit; 0 or None clips nothing.
        algorithm: Lightning's `norm` (the same as None) or `value`.
    """
    kind = GradClipAlgorithmType(algorithm or "norm")
    if isinstance(precision, MixedPrecision) and precision.scaler is None:
        Precision.clip_gradients(precision, optimizer, value or 0.0, kind)
    else:
        precision.clip_gradients(optimizer, value or 0.0, kind)
