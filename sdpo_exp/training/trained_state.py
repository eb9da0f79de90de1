"""What a checkpoint holds of a module: all of its state but weights that never change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sdpo_exp.errors import UserError

_SHOWN = 3


def leave_out_frozen(checkpoint: dict[str, Any], module: nn.Module, policy: nn.Module) -> None:
    """Take the weights that are not trained out of a checkpoint, and note the adapters' scale.

    Args:
        checkpoint: Lightning's, changed in place.
        module: whose `state_dict` the checkpoint holds.
        policy: the part of it that may carry adapters.
    """
    checkpoint["state_dict"] = _changing(module, checkpoint["state_dict"])
    checkpoint["adapters"] = _scales(policy)


def check_fits(checkpoint: Mapping[str, Any], module: nn.Module, policy: nn.Module) -> None:
    """Refuse a checkpoint of another model or tuning.

    Args:
        checkpoint, module, policy: as for `leave_out_frozen`.

    Raises:
        UserError: what would be saved here differs in names or shapes from what was, or the
            adapters have another scale.
    """
    problems = _differences(_changing(module, module.state_dict()), checkpoint["state_dict"])
    saved, ours = checkpoint.get("adapters", {}), _scales(policy)
    if not problems and saved != ours:
        problems = [f"alpha is {saved} there and {ours} here"]
    if problems:
        raise UserError(
            f"resume: the checkpoint does not fit what is trained here: {'; '.join(problems)}. "
            "Give the model and tuning of the run that made it (with LoRA: rank, alpha, targets)."
        )


def _changing(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Trained parameters, and buffers; a buffer may change without being trained."""
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in state.items() if name not in frozen}


def _scales(policy: nn.Module) -> dict[str, float]:
    """The alpha of each adapter; names and shapes tell all the rest."""
    configs: Any = getattr(policy, "peft_config", {})
    return {name: float(config.lora_alpha) for name, config in configs.items()}


def _differences(expected: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> list[str]:
    both = expected.keys() & saved.keys()
    kinds = {
        "missing": expected.keys() - saved.keys(),
        "unknown": saved.keys() - expected.keys(),
        "of another shape": {name for name in both if expected[name].shape != saved[name].shape},
    }
    return [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
