"""Low-rank adapters in any denoiser: put in, switched off for a while, merged, written out.

Everything goes by peft's layers, so a diffusers model and one that peft was injected into by hand
behave alike. LoRA: Hu et al., arXiv 2106.09685.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.models.target_names import check_targets, examples

ADAPTER = "default"
FILE = "pytorch_lora_weights.safetensors"
# Of peft's configuration, all that decides what adapters compute.
_NEEDED = ("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_rslora",
           "use_dora", "lora_bias")  # fmt: skip


def add_adapters(denoiser: nn.Module, config: LoraConfig) -> None:
    """Put LoRA layers into `denoiser`, in place; B starts at zero, so the output does not change.

    Args:
        denoiser: its `add_adapter` is used where it has one, so that it knows of its adapters.
        config: peft's; `target_modules` as peft reads them.

    Raises:
        UserError: a target matches no module, or one that LoRA cannot adapt.
    """
    modules, adaptable = _names_of(denoiser)
    check_targets(config.target_modules or (), modules, adaptable, type(denoiser).__name__)
    try:
        if hasattr(denoiser, "add_adapter"):
            denoiser.add_adapter(config, ADAPTER)  # type: ignore[operator]
        else:
            inject_adapter_in_model(config, denoiser, ADAPTER)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"tuning.targets: {reason} {examples(adaptable)}") from None


def has_adapters(denoiser: nn.Module) -> bool:
    """Whether any layer of `denoiser` carries an adapter."""
    return next(_layers(denoiser), None) is not None


@contextmanager
def adapters_off(denoiser: nn.Module) -> Iterator[None]:
    """`denoiser` computes as if it had no adapters, inside the context only.

    peft freezes adapters while they are off; which of them were trained is restored with them.
    Never enter or leave it while a graph is alive: checkpointed blocks run again in the backward
    pass, and would then run in the other state.
    """
    layers = list(_layers(denoiser))
    trained = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, was_trained in trained:
            parameter.requires_grad_(was_trained)


def merged(denoiser: nn.Module) -> nn.Module:
    """The plain model that `denoiser` computes: a copy on the CPU with its adapters added in.

    Without adapters it is `denoiser` itself. The copy is float32 also where the base is not: in
    half precision most of what an adapter adds would round to nothing. Names are those of the base,
    so `save_pretrained` writes an ordinary model.
    """
    if not has_adapters(denoiser):
        return denoiser
    plain = nn.Module.to(copy.deepcopy(denoiser), "cpu", torch.float32).requires_grad_(False)
    adapted = {name: m for name, m in plain.named_modules() if isinstance(m, BaseTunerLayer)}
    for name, layer in adapted.items():
        layer.merge()
        plain.set_submodule(name, layer.get_base_layer())
    _forget_adapters(plain)
    return plain


def adapter_state(denoiser: nn.Module) -> dict[str, Tensor]:
    """The adapter's tensors by peft's names, as diffusers' `save_lora_weights` takes them.

    Raises:
        ValueError: there are no adapters.
    """
    adapter_config(denoiser)
    state: dict[str, Tensor] = get_peft_model_state_dict(denoiser, adapter_name=ADAPTER)
    # Adapters of convolutions are channels-last where the network is; safetensors takes no such.
    return {name: tensor.contiguous() for name, tensor in state.items()}


def write_adapters(denoiser: nn.Module, folder: Path, part: str) -> None:
    """Write `pytorch_lora_weights.safetensors`, the adapter's configuration in its metadata.

    As diffusers writes it: `load_lora_weights(folder)` of a pipeline puts it back, and where a
    pipeline has none, `load_lora_adapter(folder, prefix=part)` of its denoiser.

    Args:
        denoiser: with adapters.
        folder: made where it is not there.
        part: the denoiser's name in its pipeline, which every name begins with.

    Raises:
        ValueError: there are no adapters.
    """
    config = adapter_config(denoiser).to_dict()
    told = {
        f"{part}.{key}": sorted(value) if isinstance(value, set) else value
        for key, value in config.items()
    }
    text = json.dumps(told, default=str, indent=2, sort_keys=True)
    state = {f"{part}.{name}": tensor.cpu() for name, tensor in adapter_state(denoiser).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / FILE, {"format": "pt", "lora_adapter_metadata": text})


def read_adapters(denoiser: nn.Module, file: Path, part: str) -> None:
    """Put what `write_adapters` wrote into `denoiser`, in place; for one that diffusers has not.

    Args:
        denoiser: without adapters.
        file: with peft's configuration in its metadata.
        part: the denoiser's name in its pipeline, which every name begins with.

    Raises:
        UserError: the file is broken, says nothing of its adapters, or they are another network's.
    """
    state, told = _stored(file)
    own = {key.removeprefix(f"{part}."): value for key, value in told.items()}
    if "r" not in own:
        raise UserError(f"{file}: its metadata does not tell rank and alpha of a {part}'s LoRA")
    config = LoraConfig(**{key: own[key] for key in _NEEDED if key in own}, inference_mode=True)
    add_adapters(denoiser, config)
    named = {name.removeprefix(f"{part}."): tensor for name, tensor in state.items()}
    expected = adapter_state(denoiser)
    shapes, found = ({n: t.shape for n, t in each.items()} for each in (expected, named))
    if odd := sorted(n for n in shapes.keys() | found.keys() if shapes.get(n) != found.get(n)):
        raise UserError(f"{file}: not of this {type(denoiser).__name__}: {odd[0]} does not fit")
    set_peft_model_state_dict(denoiser, named, adapter_name=ADAPTER)


def _stored(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(file, framework="pt") as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return state, json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({first_line(error)})") from None


def adapter_config(denoiser: nn.Module) -> LoraConfig:
    """The configuration of the adapter; an export without it loses alpha.

    Raises:
        ValueError: there are no adapters.
    """
    if not has_adapters(denoiser):
        raise ValueError(f"{type(denoiser).__name__} has no adapters")
    configs: dict[str, LoraConfig] = denoiser.peft_config  # type: ignore[assignment]
    return configs[ADAPTER]


def _layers(denoiser: nn.Module) -> Iterator[Any]:
    return (module for module in denoiser.modules() if isinstance(module, BaseTunerLayer))


def _forget_adapters(plain: nn.Module) -> None:
    del plain.peft_config
    if hasattr(plain, "_hf_peft_config_loaded"):
        # What diffusers looks at before it saves or loads.
        plain._hf_peft_config_loaded = False  # type: ignore[assignment]


def _names_of(denoiser: nn.Module) -> tuple[list[str], list[str]]:
    """Names of all modules, and of those that LoRA can adapt."""
    modules = {name: module for name, module in denoiser.named_modules() if name}
    kinds = (nn.Linear, nn.Conv2d)
    return list(modules), [name for name, module in modules.items() if isinstance(module, kinds)]
