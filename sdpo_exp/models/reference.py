"""Where the reference prediction comes from."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

ReferenceDtype = Literal["float32", "bfloat16", "float16"]


class FrozenReference:
    """A frozen copy of the policy as it was before training.

    It runs under the same autocast as the policy, so with `float32` weights (the default) policy
    and reference agree to the bit at step 0. Half-precision weights save memory and cost that
    agreement; the start-up check then says by how much.
    """

    def __init__(self, dtype: ReferenceDtype = "float32") -> None:
        self._dtype = getattr(torch, dtype)
        self._network: nn.Module | None = None

    def attach(self, denoiser: nn.Module) -> None:
        """Copy the policy. Call once, before any training step and before loading a checkpoint."""
        copied = copy.deepcopy(denoiser).requires_grad_(False)
        # The plain method: diffusers' own warns about modules that it has none of.
        self._network = nn.Module.to(copied, self._dtype)

    def to(self, device: torch.device) -> None:
        """Move the copy."""
        if self._network is not None:
            self._network.to(device)

    def networks(self) -> list[nn.Module]:
        """The copy."""
        return [self._network] if self._network is not None else []

    @contextmanager
    def network(self, policy: nn.Module) -> Iterator[nn.Module]:
        """The frozen copy, in the policy's train or eval mode so that both compute alike."""
        if self._network is None:
            raise RuntimeError("attach(denoiser) must be called before the reference is used")
        yield self._network.train(policy.training)
