"""What of the denoiser is trained, and how networks are executed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import MinLen
from peft import LoraConfig
from torch import nn

from sdpo_exp.bounds import HalfOpenUnit, NonNegativeInt, PositiveFloat, PositiveInt
from sdpo_exp.errors import UserError
from sdpo_exp.models.lora import add_adapters
from sdpo_exp.models.target_names import ATTENTION

BaseDtype = Literal["float32", "bfloat16", "float16"]
Targets = Annotated[str, MinLen(1)] | Annotated[list[str], MinLen(1)] | None


@dataclass(eq=False, kw_only=True)
class Tuning:
    """How networks are executed, whatever of them is trained; a subclass adds `apply`.

    Args:
        gradient_checkpointing: recompute activations in the backward pass: less memory, about a
            third more time, equal gradients.
        compile: `torch.compile` policy and reference, in place.
        compile_backend: of `torch.compile`.
        channels_last: convolution weights in channels-last layout, often the faster one on CPUs;
            docs/gpu.md has what it did on a GPU.
    """

    gradient_checkpointing: bool = False
    compile: bool = False
    compile_backend: str = "inductor"
    channels_last: bool = False

    def prepare(self, network: nn.Module) -> None:
        """Memory layout and compilation, in place.

        Raises:
            UserError: torch has no such compile backend.
        """
        if self.channels_last:
            nn.Module.to(network, memory_format=torch.channels_last)
        if self.compile:
            _compile(network, self.compile_backend)


class FullTuning(Tuning):
    """All weights, as float32 masters whatever the autocast dtype; arguments are `Tuning`'s."""

    def apply(self, denoiser: nn.Module) -> None:
        """Make `denoiser` trainable in place."""
        nn.Module.to(denoiser, torch.float32).requires_grad_(True).train()
        if self.gradient_checkpointing:
            _checkpoint_activations(denoiser)


@dataclass(eq=False)
class LoraTuning(Tuning):
    """Low-rank adapters beside a frozen base; what they compute is B A x * alpha / rank.

    Args:
        rank: rows of A and columns of B.
        alpha: numerator of the scale; equal to `rank` the scale is 1.
        targets: which modules are adapted: ends of their names as a list, or a regular expression
            for whole names; None takes the model's own `lora_targets`, and where it names none the
            attention's `to_q`, `to_k`, `to_v` and `to_out.0`.
        dropout: before A, in the policy's pass only. Its masks come from torch's global stream,
            so with dropout a resumed run is a run of the same kind, not the same run to the bit.
        base_dtype: of the frozen base. Adapters are float32 whatever it is.
        seed: of A. B starts at zero, so the first prediction is the base's.
        gradient_checkpointing, compile, compile_backend, channels_last: `Tuning`'s, by name.
    """

    rank: PositiveInt = 16
    alpha: PositiveFloat = 16
    targets: Targets = None
    dropout: HalfOpenUnit = 0.0
    base_dtype: BaseDtype = "float32"
    seed: NonNegativeInt = 0

    def apply(self, denoiser: nn.Module) -> None:
        """Freeze `denoiser` and put adapters into it, in place.

        Raises:
            UserError: the targets do not fit the model.
        """
        # The plain method: diffusers' own warns about modules that it has none of.
        nn.Module.to(denoiser, getattr(torch, self.base_dtype)).requires_grad_(False).train()
        # A stream of its own: A does not depend on what else was drawn while building.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            add_adapters(denoiser, self._config(denoiser))
        for parameter in denoiser.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if self.gradient_checkpointing:
            _checkpoint_activations(denoiser)

    def _config(self, denoiser: nn.Module) -> LoraConfig:
        own = getattr(denoiser, "lora_targets", ATTENTION)
        targets = own if self.targets is None else self.targets
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
        )


def _checkpoint_activations(denoiser: nn.Module) -> None:
    try:
        denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    except (AttributeError, ValueError):
        name = type(denoiser).__name__
        raise UserError(f"tuning.gradient_checkpointing=true: {name} cannot; set false") from None


def _compile(network: nn.Module, backend: str) -> None:
    if isinstance(backend, str) and backend not in torch.compiler.list_backends(()):
        known = ", ".join(torch.compiler.list_backends())
        raise UserError(f"tuning.compile_backend={backend}: torch has {known}")
    # In place: a wrapper would rename every parameter in the checkpoints.
    network.compile(backend=backend)
