"""All gradients of a model as one vector, in the order of the optimiser's groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def trained(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What an optimiser moves, group after group; P elements together."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """float32 (P,) of tensors with P elements together."""
    return torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])


def parts_of(vector: Tensor, like: Sequence[Tensor]) -> Iterator[Tensor]:
    """Views of a vector (P,) in the shapes of `like`."""
    sizes = [tensor.numel() for tensor in like]
    for part, tensor in zip(vector.split(sizes), like, strict=True):
        yield part.view_as(tensor)


def gradient(scalar: Tensor, parameters: Sequence[Tensor], *, keep: bool = False) -> Tensor:
    """(P,) of a scalar (); 0 where it does not depend on a parameter. `keep`: the graph stays."""
    if not scalar.requires_grad:
        return flat([torch.zeros_like(p) for p in parameters])
    found = torch.autograd.grad(
        scalar, parameters, retain_graph=keep, allow_unused=True, materialize_grads=True
    )
    return flat(found)


def write_gradient(vector: Tensor, parameters: Sequence[Tensor]) -> None:
    """Make a vector (P,) the parameters' `.grad`."""
    for part, parameter in zip(parts_of(vector, parameters), parameters, strict=True):
        parameter.grad = part.to(parameter.dtype, copy=True)
