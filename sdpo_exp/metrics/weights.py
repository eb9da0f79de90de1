"""Weights and configurations of the scorers: read without running code, and loaded strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sdpo_exp.errors import UserError, first_line

M = TypeVar("M", bound=nn.Module)
# Buffers that old checkpoints hold and today's classes rebuild.
POSITION_IDS = r"(.*\.)?position_ids"


def read(file: Path) -> dict[str, Any]:
    """The content of a `.safetensors` file or of a pickle of tensors, on the CPU.

    Raises:
        UserError: unreadable, or a pickle with more in it than tensors and plain containers.
    """
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = first_line(error)
        raise UserError(
            f"{file}: cannot be read as weights ({reason}). A pickle may hold tensors only: one "
            "that you trust and that holds more can be rewritten as .safetensors"
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{file}: holds a {type(content).__name__}, not a state dict")
    return dict(content)


def build(
    kind: Callable[[], M], state: Mapping[str, Any], what: str, dropped: Sequence[str] = ()
) -> M:
    """A module with all of `state` in all of it: frozen, float32 and in eval mode.

    Args:
        kind: makes the module; called without memory first, so that wrong weights cost no time.
        state: tensors by name.
        what: the model's name, for messages.
        dropped: patterns of whole names that are left out; anything else must fit.

    Raises:
        UserError: a name is missing or unknown, or a shape differs.
    """
    if not isinstance(state, Mapping):
        raise UserError(f"{what}: wrong weights: a {type(state).__name__}, not a state dict")
    kept = {name: value for name, value in state.items() if not _matches(name, dropped)}
    with torch.device("meta"):
        own = kind().state_dict()
    problems = [
        *(f"lacks {name}" for name in own if name not in kept),
        *(f"has an unknown {name}" for name in kept if name not in own),
        *(m for name, value in own.items() if name in kept for m in _misfit(name, value, kept)),
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{what}: wrong weights: {'; '.join(problems[:3])}{more}")
    # Random weights, soon overwritten, must not move the random numbers of what goes on around.
    with torch.random.fork_rng(devices=[]):
        module = kind().float()
    module.load_state_dict(kept, strict=True)
    return module.eval().requires_grad_(False)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _misfit(name: str, own: Tensor, kept: Mapping[str, Any]) -> list[str]:
    value = kept[name]
    if not isinstance(value, Tensor):
        return [f"{name} is a {type(value).__name__}, not a tensor"]
    if value.shape != own.shape:
        return [f"{name} is {tuple(value.shape)}, not {tuple(own.shape)}"]
    return []


def expect(what: str, config: Any, **values: Any) -> None:
    """Refuse a configuration under which the weights would load and the scores be wrong.

    Raises:
        UserError: an attribute differs.
    """
    for key, value in values.items():
        if (found := getattr(config, key)) != value:
            raise UserError(f"{what}: the configuration has {key}={found}, it must be {value}")


def pretrained(kind: Any, folder: Path) -> Any:
    """A configuration or tokenizer by its class's `from_pretrained`, from local files only.

    Raises:
        UserError: broken, or of another kind.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"{folder}: cannot be loaded as {kind.__name__}: {reason}") from error
