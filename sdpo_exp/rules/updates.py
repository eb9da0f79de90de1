"""The step that an optimiser would take with a gradient, without taking it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.rules.flat import flat

Step: TypeAlias = Callable[[Tensor], Tensor]


def check_known(optimizer: torch.optim.Optimizer, safeguard: str) -> None:
    """Refuse optimisers whose arithmetic is not written here.

    Raises:
        UserError: not plain AdamW, Adam or SGD.
    """
    kind = type(optimizer)
    known = kind in _STEPS and not any(
        group.get("amsgrad") or group.get("maximize") for group in optimizer.param_groups
    )
    if not known:
        raise UserError(
            f"{safeguard}: predicts the real step of torch's AdamW, Adam and SGD only "
            f"(without amsgrad or maximize), not of {kind.__name__}; choose optimizer=adamw, or "
            "safeguard=parameter, which knows any optimiser"
        )


def real_step(optimizer: torch.optim.Optimizer) -> Step:
    """From a gradient (P,) to what the next `optimizer.step()` would add to the parameters, (P,).

    Reads the optimiser's state once; it must not step between this call and the last use.
    """
    kind = _STEPS[type(optimizer)]
    parts = [kind(group, optimizer.state) for group in optimizer.param_groups]
    sizes = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]

    def step(gradient: Tensor) -> Tensor:
        pieces = zip(parts, gradient.split(sizes), strict=True)
        return torch.cat([part(piece) for part, piece in pieces])

    return step


def preconditioner(optimizer: torch.optim.Optimizer) -> Tensor:
    """(P,) that the last step multiplied its direction by: lr / (sqrt(v) + eps); lr for SGD."""
    return torch.cat([_scale(type(optimizer), g, optimizer.state) for g in optimizer.param_groups])


def _adam(group: Mapping[str, Any], state: Mapping[Any, Any], *, decoupled: bool) -> Step:
    """Adam (decay in the gradient) or AdamW (decay of the weights), torch's single-tensor order."""
    lr, (beta1, beta2), eps, decay = (group[k] for k in ("lr", "betas", "eps", "weight_decay"))
    weights = flat(group["params"])
    first, second = (_moment(group["params"], state, k) for k in ("exp_avg", "exp_avg_sq"))
    count = _count(group["params"], state) + 1
    correction1, correction2 = 1 - beta1**count, 1 - beta2**count

    def step(gradient: Tensor) -> Tensor:
        if not decoupled:
            gradient = gradient + decay * weights
        mean = torch.lerp(first, gradient, 1 - beta1)
        square = beta2 * second + (1 - beta2) * gradient.square()
        moved = -lr / correction1 * mean / (square.sqrt() / correction2**0.5 + eps)
        return moved - lr * decay * weights if decoupled else moved

    return step


def _adamw_of(group: Mapping[str, Any], state: Mapping[Any, Any]) -> Step:
    return _adam(group, state, decoupled=True)


def _adam_of(group: Mapping[str, Any], state: Mapping[Any, Any]) -> Step:
    return _adam(group, state, decoupled=False)


def _sgd_of(group: Mapping[str, Any], state: Mapping[Any, Any]) -> Step:
    lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
    weights = flat(group["params"])
    buffers = [state.get(p, {}).get("momentum_buffer") for p in group["params"]]
    velocity = None if momentum == 0 or buffers[0] is None else flat(buffers)

    def step(gradient: Tensor) -> Tensor:
        gradient = gradient + decay * weights
        if momentum == 0:
            return -lr * gradient
        # The first step fills the buffer without damping.
        moving = (
            gradient
            if velocity is None
            else momentum * velocity + (1 - group["dampening"]) * gradient
        )
        return -lr * (gradient + momentum * moving if group["nesterov"] else moving)

    return step


def _moment(params: Iterable[Tensor], state: Mapping[Any, Any], name: str) -> Tensor:
    return flat([state.get(p, {}).get(name, torch.zeros_like(p)) for p in params])


def _count(params: Iterable[Tensor], state: Mapping[Any, Any]) -> int:
    """Steps taken. One parameter tells: rules write every gradient, so a group steps together, and
    a fused optimiser's counters lie on the device, where each read waits."""
    return next((int(state.get(p, {}).get("step", 0)) for p in params), 0)


def _scale(kind: type, group: Mapping[str, Any], state: Mapping[Any, Any]) -> Tensor:
    params, lr = group["params"], group["lr"]
    if kind is torch.optim.SGD:
        return torch.full_like(flat(params), lr)
    correction = 1 - group["betas"][1] ** max(1, _count(params, state))
    second = _moment(params, state, "exp_avg_sq")
    return lr / ((second / correction).sqrt() + group["eps"])


_STEPS: Mapping[type, Callable[[Mapping[str, Any], Mapping[Any, Any]], Step]] = {
    torch.optim.AdamW: _adamw_of,
    torch.optim.Adam: _adam_of,
    torch.optim.SGD: _sgd_of,
}
