"""What stacked pairs of predictions must be, before errors are made of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Floating point, one shape, (2B, ...) with B >= 1; else TypeError or ValueError."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be a floating-point tensor, got {tensor.dtype}")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"pred, ref and target must have one shape, got {shapes}")
    shape = shapes["pred"]
    if len(shape) < 2 or shape[0] == 0 or shape[0] % 2:
        raise ValueError(
            f"tensors must be (2B, ...) with the B winners first and B >= 1, got shape {shape}"
        )


def check_finite_halves(tensors: Mapping[str, Tensor]) -> None:
    """ValueError naming the half that has a value which is not finite; waits for the device."""
    roles = {"pred": "policy prediction", "ref": "reference prediction", "target": "target"}
    for name, tensor in tensors.items():
        for half, rows in zip(("winner", "loser"), tensor.chunk(2), strict=True):
            if not bool(torch.isfinite(rows).all()):
                raise ValueError(f"the {roles[name]} of the {half} half has non-finite values")
