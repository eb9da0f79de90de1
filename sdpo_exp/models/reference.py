"""Where the reference prediction comes from."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from sdpo_exp.errors import UserError
from sdpo_exp.models.lora import adapters_off, has_adapters

ReferenceDtype = Literal["float32", "bfloat16", "float16"]
ReferenceDevice = Literal["auto", "cpu"]
_HOST = torch.device("cpu")


class FrozenReference:
    """A frozen copy of the policy as it was before training.

    It runs under the same autocast as the policy, so with `float32` weights (the default) policy
    and reference agree to the bit at step 0. Half-precision weights save memory and cost that
    agreement; the start-up check then says by how much.

    Args:
        dtype: of the copy's weights. The backbone casts what goes into it.
        device: `auto` keeps the copy beside the policy. `cpu` keeps it in main memory and lends it
            to the device for its own pass, so that it is not there when activations are.
    """

    def __init__(self, dtype: ReferenceDtype = "float32", device: ReferenceDevice = "auto") -> None:
        self._dtype = getattr(torch, dtype)
        self._lent = device == "cpu"
        self._device = _HOST
        self._network: nn.Module | None = None

    def attach(self, denoiser: nn.Module) -> None:
        """Copy the policy. Call once, before any training step and before loading a checkpoint."""
        copied = copy.deepcopy(denoiser).requires_grad_(False)
        # The plain method: diffusers' own warns about modules that it has none of.
        self._network = nn.Module.to(copied, self._dtype)

    def to(self, device: torch.device) -> None:
        """Where the copy computes."""
        self._device = device
        if self._network is not None and not self._lent:
            self._network.to(device)

    def networks(self) -> list[nn.Module]:
        """The copy."""
        return [self._network] if self._network is not None else []

    @contextmanager
    def network(self, policy: nn.Module) -> Iterator[nn.Module]:
        """The frozen copy, in the policy's train or eval mode so that both compute alike."""
        if self._network is None:
            raise RuntimeError("attach(denoiser) must be called before the reference is used")
        if not self._lent:
            yield self._network.train(policy.training)
            return
        try:
            yield self._network.to(self._device).train(policy.training)
        finally:
            self._network.to(_HOST)


class AdapterOff:
    """The policy itself with its adapters switched off: no second network.

    The base is frozen under adapters, so this is the policy as it was before training, to the bit
    and whatever the base's dtype.
    """

    def attach(self, denoiser: nn.Module) -> None:
        """Nothing to keep: the adapters are not there yet."""

    def to(self, device: torch.device) -> None:
        """Nothing to move."""

    def networks(self) -> list[nn.Module]:
        """None."""
        return []

    @contextmanager
    def network(self, policy: nn.Module) -> Iterator[nn.Module]:
        """The policy without its adapters; leave the context before the policy's own pass.

        Raises:
            UserError: the policy has no adapters.
        """
        if not has_adapters(policy):
            raise UserError(
                "reference=adapter_off: the policy has no adapters to switch off. Use tuning=lora, "
                "or reference=frozen."
            )
        with adapters_off(policy):
            yield policy
