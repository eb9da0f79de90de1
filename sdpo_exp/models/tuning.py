"""What of the denoiser is trained, and how networks are executed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from peft import LoraConfig
from torch import nn

from sdpo_exp.bounds import HalfOpenUnit, NonNegativeInt, PositiveFloat, PositiveInt
from sdpo_exp.errors import UserError
from sdpo_exp.models.lora import ATTENTION, add_adapters

BaseDtype = Literal["float32", "bfloat16", "float16"]
Targets = Annotated[str, MinLen(1)] | Annotated[list[str], MinLen(1)] | None


class FullTuning:
    """All weights, kept as float32 masters whatever the autocast dtype.

    Args:
        gradient_checkpointing: recompute activations in the backward pass: less memory, about a
            third more time, equal gradients.
        compile: `torch.compile` policy and reference, in place.
        compile_backend: of `torch.compile`.
        channels_last: convolution weights in channels-last layout, which is the faster one on
            accelerators, and often on CPUs.
    """

    def __init__(
        self,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        compile_backend: str = "inductor",
        channels_last: bool = False,
    ) -> None:
        self.gradient_checkpointing = gradient_checkpointing
        self.compile, self.compile_backend = compile, compile_backend
        self.channels_last = channels_last

    def apply(self, denoiser: nn.Module) -> None:
        """Make `denoiser` trainable in place."""
        nn.Module.to(denoiser, torch.float32).requires_grad_(True).train()
        if self.gradient_checkpointing:
            _checkpoint_activations(denoiser)

    def prepare(self, network: nn.Module) -> None:
        """Memory layout and compilation, in place.

        Raises:
            UserError: torch has no such compile backend.
        """
        _prepare(network, self.channels_last, self.compile_backend if self.compile else None)


class LoraTuning:
    """Low-rank adapters beside a frozen base; what they compute is B A x * alpha / rank.

    Args:
        rank: rows of A and columns of B.
        alpha: numerator of the scale; equal to `rank` the scale is 1.
        targets: which modules are adapted: ends of their names as a list, or a regular expression
            for whole names; None takes the attention's `to_q`, `to_k`, `to_v` and `to_out.0`.
        dropout: before A, in the policy's pass only. Its masks come from torch's global stream,
            so with dropout a resumed run is a run of the same kind, not the same run to the bit.
        gradient_checkpointing, compile, compile_backend, channels_last: as in `FullTuning`.
        base_dtype: of the frozen base. Adapters are float32 whatever it is.
        seed: of A. B starts at zero, so the first prediction is the base's.
    """

    def __init__(
        self,
        rank: PositiveInt = 16,
        alpha: PositiveFloat = 16,
        targets: Targets = None,
        dropout: HalfOpenUnit = 0.0,
        gradient_checkpointing: bool = False,
        base_dtype: BaseDtype = "float32",
        compile: bool = False,
        compile_backend: str = "inductor",
        channels_last: bool = False,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.rank, self.alpha, self.dropout, self.seed = rank, alpha, dropout, seed
        self.targets: str | Sequence[str] = ATTENTION if targets is None else targets
        self.base_dtype = getattr(torch, base_dtype)
        self.gradient_checkpointing = gradient_checkpointing
        self.compile, self.compile_backend = compile, compile_backend
        self.channels_last = channels_last

    def apply(self, denoiser: nn.Module) -> None:
        """Freeze `denoiser` and put adapters into it, in place.

        Raises:
            UserError: the targets do not fit the model.
        """
        # The plain method: diffusers' own warns about modules that it has none of.
        nn.Module.to(denoiser, self.base_dtype).requires_grad_(False).train()
        # A stream of its own: A does not depend on what else was drawn while building.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            add_adapters(denoiser, self._config())
        for parameter in denoiser.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if self.gradient_checkpointing:
            _checkpoint_activations(denoiser)

    def prepare(self, network: nn.Module) -> None:
        """Memory layout and compilation, in place.

        Raises:
            UserError: torch has no such compile backend.
        """
        _prepare(network, self.channels_last, self.compile_backend if self.compile else None)

    def _config(self) -> LoraConfig:
        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=targets,
        )


def _checkpoint_activations(denoiser: nn.Module) -> None:
    try:
        denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    except (AttributeError, ValueError):
        name = type(denoiser).__name__
        raise UserError(f"tuning.gradient_checkpointing=true: {name} cannot; set false") from None


def _prepare(network: nn.Module, channels_last: bool, backend: str | None) -> None:
    if channels_last:
        nn.Module.to(network, memory_format=torch.channels_last)
    if backend is None:
        return
    if isinstance(backend, str) and backend not in torch.compiler.list_backends(()):
        known = ", ".join(torch.compiler.list_backends())
        raise UserError(f"tuning.compile_backend={backend}: torch has {known}")
    # In place: a wrapper would rename every parameter in the checkpoints.
    network.compile(backend=backend)
