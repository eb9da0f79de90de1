"""Weights of a denoiser alone: the public `unet.pth`, safetensors, or diffusers' `unet/` folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sdpo_exp.errors import UserError, first_line

# What wrappers put in front of every name: DDP, compiled modules, a pipeline's own attribute.
_PREFIXES = ("module.", "_orig_mod.", "unet.")


def read_state(path: Path) -> dict[str, Tensor]:
    """Weights by name, on the CPU; pickles are read with `weights_only`.

    Raises:
        UserError: nothing there, unreadable, or something else than a table of tensors.
    """
    file = _weight_file(path)
    try:
        if file.suffix == ".safetensors":
            content = load_file(file)
        else:
            # Files from before torch 1.6 are no zip archives and cannot be mapped.
            mapped = zipfile.is_zipfile(file)
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"{file}: cannot be read as weights ({reason})") from None
    if not isinstance(content, dict) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise UserError(f"{file}: holds no plain table of tensors, as a state_dict has it")
    return {_plain(name): tensor for name, tensor in content.items()}


def load_into(network: nn.Module, path: Path) -> None:
    """Give `network` the weights of `path`, all of them and no others.

    Raises:
        UserError: names or shapes do not fit.
    """
    state, own = read_state(path), network.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = sorted(
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if state[name].shape != own[name].shape
    )
    faults = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, what in ((missing, "missing"), (unknown, "unknown"), (other, "of another shape"))
        if names
    ]
    if faults:
        raise UserError(f"{path}: not the weights of this model's denoiser: {'; '.join(faults)}")
    network.load_state_dict(state)


def write_state(network: nn.Module, file: Path) -> None:
    """The public `unet.pth`: a pickled state dict of plain tensors under plain names."""
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    torch.save(state, file)


def _weight_file(path: Path) -> Path:
    if path.is_file():
        return path
    folder = path / "unet" if (path / "unet").is_dir() else path
    for name in ("diffusion_pytorch_model.safetensors", "unet.pth"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{path}: neither a file of weights nor a folder with "
        "diffusion_pytorch_model.safetensors or unet.pth"
    )


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
